"""Signatures: who could have written the log, and what happens when the key changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit_logs import entries, log_files, settings, write_log
from penstock.audit.chain import Chain
from penstock.audit.signatures import BELIEVED, UNSIGNED
from penstock.audit.signing import Signer, public_keys
from penstock.audit.verify import Verdict, verify
from penstock.errors import ConfigError


def problems(verdict: Verdict) -> str:
    return "\n".join(map(str, verdict.problems))


def test_all_records_are_covered(tmp_path: Path) -> None:
    signer = Signer.generate()
    write_log(tmp_path / "audit", [["a"], ["b"]], signer)
    verdict = verify(tmp_path / "audit", [signer.verifier])
    assert verdict.is_whole and not verdict.notes
    assert verdict.signed_up_to == verdict.records == 5
    assert verify(tmp_path / "audit").notes == [BELIEVED]


def test_a_log_that_is_not_signed_says_so(tmp_path: Path) -> None:
    write_log(tmp_path / "audit", [["a"]])
    verdict = verify(tmp_path / "audit")
    assert verdict.is_whole and verdict.notes == [UNSIGNED]
    assert "not signed by a key that is to be believed" in problems(
        verify(tmp_path / "audit", [Signer.generate().verifier])
    )


def test_a_log_written_anew_without_the_key_is_found(tmp_path: Path) -> None:
    signer, mallory = Signer.generate(), Signer.generate()
    write_log(tmp_path / "forged", [["all is well"]], mallory)
    assert verify(tmp_path / "forged").is_whole
    found = problems(verify(tmp_path / "forged", [signer.verifier]))
    # once, not with each of its signatures
    assert found.count(mallory.id) == 1 and len(found.splitlines()) == 1
    assert f"key {mallory.id} is none of those given" in found
    assert verify(tmp_path / "forged", [signer.verifier]).signed_up_to == 0


@pytest.mark.parametrize("given", [True, False], ids=["the right key", "no key"])
@pytest.mark.parametrize("how", ["removed", "emptied"])
@pytest.mark.parametrize("files", ["one file", "several"])
def test_a_file_that_is_gone_is_named_and_the_key_is_not_blamed(
    tmp_path: Path, given: bool, how: str, files: str
) -> None:
    """The first file has the record that names the key."""
    signer = Signer.generate()
    folder = tmp_path / "audit"
    rotate = {"rotate_bytes": 1 << 20} if files == "one file" else {}
    write_log(folder, [[f"{n}", f"{n}+"] for n in range(10)], signer, **rotate)
    first = log_files(folder)[0]
    if how == "removed":
        first.unlink()
    else:
        first.write_bytes(b"")
    found = verify(folder, [signer.verifier] if given else [])
    text = "the file is missing" if how == "removed" else "the file is empty"
    assert str(found.problems[0]) == f"audit-000001.jsonl: {text}"
    told = problems(found)
    assert "of another log" not in told and "believed" not in told
    assert told.count(signer.id) == (0 if given else 1)
    assert (f"key {signer.id}, and the record that names this key is missing" in told) == (
        not given
    )
    # what is left of it is signed as before
    assert bool(found.signed_up_to) == given


def test_a_head_without_any_record_is_damage(tmp_path: Path) -> None:
    from penstock.audit.head import Reach, encode_head
    from penstock.audit.lines import NO_HASH

    reach = Reach(log="a", seq=0, last=NO_HASH, file=0, end=0, checkpoint=0, checkpoint_ns=0)
    (tmp_path / "head.json").write_bytes(encode_head(reach, None))
    assert not verify(tmp_path).is_whole


def test_a_record_changed_with_all_hashes_after_it_is_found_by_the_signature(
    tmp_path: Path,
) -> None:
    """Who has no key can make every hash fit, but no signature."""
    from penstock.audit.lines import NO_HASH, RECORD_DOMAIN, TAIL_BYTES, sealed

    signer = Signer.generate()
    folder = tmp_path / "audit"
    write_log(folder, [["guilty"], ["b"]], signer, rotate_bytes=1 << 20)
    (file,) = log_files(folder)
    last, lines = NO_HASH, []
    for line in file.read_bytes().splitlines(keepends=True):
        body = line[:-TAIL_BYTES].replace(b"guilty", b"honest")
        old = body.split(b'"prev":"')[1][:64]
        line, last = sealed(body.replace(old, last.encode()), RECORD_DOMAIN)
        lines.append(line)
    file.write_bytes(b"".join(lines))
    found = problems(verify(folder))
    assert "record 5: its signature does not hold" in found
    assert "head.json:1: record 5: the log ends with another record" in found


def test_a_checkpoint_of_another_log_does_not_count(tmp_path: Path) -> None:
    signer = Signer.generate()
    for name in ("one", "other"):
        write_log(tmp_path / name, [["a"]], signer)
    (tmp_path / "one" / "head.json").write_bytes((tmp_path / "other" / "head.json").read_bytes())
    assert "of another log" in problems(verify(tmp_path / "one", [signer.verifier]))


def test_a_new_key_is_vouched_for_by_the_one_before(tmp_path: Path) -> None:
    old, new = Signer.generate(), Signer.generate()
    chain = write_log(tmp_path / "audit", [["a"]], old)
    chain.rekey(new)
    chain.append(entries(["b"]), checkpoint=True)
    assert verify(tmp_path / "audit", [old.verifier]).is_whole
    assert verify(tmp_path / "audit", [old.verifier, new.verifier]).is_whole
    # the new one says nothing of what was before
    assert not verify(tmp_path / "audit", [new.verifier]).is_whole


def test_a_new_key_that_nobody_vouches_for_has_to_be_given(tmp_path: Path) -> None:
    old, new = Signer.generate(), Signer.generate()
    write_log(tmp_path / "audit", [["a"]], old)
    write_log(tmp_path / "audit", [["b"]], new)
    assert f"key {new.id} is none of those" in problems(verify(tmp_path / "audit", [old.verifier]))
    assert verify(tmp_path / "audit", [old.verifier, new.verifier]).is_whole


def test_records_written_without_the_key_in_between_are_told(tmp_path: Path) -> None:
    signer = Signer.generate()
    folder = tmp_path / "audit"
    write_log(folder, [["a"]], signer)
    write_log(folder, [["b"]])
    assert "not signed by a key that is to be believed" in problems(verify(folder))
    write_log(folder, [["c"]], signer)
    assert verify(folder).is_whole
    assert any("written without its key" in note for note in verify(folder).notes)
    assert "written without its key" in problems(verify(folder, [signer.verifier]))


def test_an_older_copy_of_everything_is_found_by_an_anchor_alone(tmp_path: Path) -> None:
    signer = Signer.generate()
    folder = tmp_path / "audit"
    chain = write_log(folder, [["a"]], signer)
    copy = {path.name: path.read_bytes() for path in folder.iterdir()}
    chain.append(entries(["b"]), checkpoint=True)
    seq, digest = verify(folder).anchor.split(":")
    anchor = int(seq), digest
    assert verify(folder, [signer.verifier], anchor).is_whole
    for name, data in copy.items():
        (folder / name).write_bytes(data)
    assert verify(folder, [signer.verifier]).is_whole
    found = problems(verify(folder, [signer.verifier], anchor))
    assert "the log has only 4 records: an older copy" in found
    assert "not the record with hash" in problems(verify(folder, [], (2, "ab" * 32)))


def test_keys_are_read_from_pem(tmp_path: Path) -> None:
    signer, other = Signer.generate(), Signer.generate()
    again = Signer.from_pem(signer.private_pem(), "file:key")
    assert again.id == signer.id
    both = public_keys(signer.verifier.pem() + other.verifier.pem(), "keys.pem")
    assert [key.id for key in both] == [signer.id, other.id]


@pytest.mark.parametrize(
    "pem", [b"", b"hunter2", Signer.generate().verifier.pem()], ids=["empty", "text", "public"]
)
def test_what_is_no_private_key_is_refused_without_quoting_it(pem: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^file:/k: expected an Ed25519 private key in PEM"):
        Signer.from_pem(pem, "file:/k")
    with pytest.raises(ConfigError, match="expected Ed25519 public keys in PEM"):
        public_keys(b"hunter2", "keys.pem")


def test_a_chain_names_its_key_once(tmp_path: Path) -> None:
    signer = Signer.generate()
    chain = Chain(settings(tmp_path / "audit"), signer)
    for text in "abc":
        chain.append(entries([text]))
    data = b"".join(path.read_bytes() for path in log_files(tmp_path / "audit"))
    assert data.count(b'"kind":"key"') == 1
