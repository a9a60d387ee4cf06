"""Writing: groups are durable or undone, files follow one another, and a crash is told from tampering."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from audit_logs import entries, log_files, settings, write_log
from penstock.audit import chain as chain_module
from penstock.audit.chain import Chain
from penstock.audit.folder import Folder
from penstock.audit.reading import Filter, records
from penstock.audit.recovery import Damaged
from penstock.audit.signing import Signer
from penstock.audit.verify import verify


def texts(folder: Path) -> list[str]:
    """The events' texts."""
    wanted = Filter(action="authenticate", limit=10_000)
    return [record.reason for record in records(folder, wanted)]


def test_events_are_written_in_order_over_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [[f"{n}", f"{n}+"] for n in range(20)])
    assert texts(folder) == [text for n in range(20) for text in (f"{n}", f"{n}+")]
    files = log_files(folder)
    assert len(files) > 3
    assert files[1].name == "audit-000002.jsonl"
    verdict = verify(folder)
    assert verdict.is_whole and verdict.files == len(files)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "audit"
    write_log(folder, [["a"]])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_or_the_group_too(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"]], file_mode="0640")
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_several_writers_share_a_log(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    one, other = Chain(settings(folder), None), Chain(settings(folder), None)
    for n in range(6):
        (one, other)[n % 2].append(entries([str(n)]))
    assert texts(folder) == list("012345")
    assert verify(folder).is_whole


def test_checkpoints_are_signed_every_so_many_records(tmp_path: Path) -> None:
    signer = Signer.generate()
    folder = tmp_path / "audit"
    chain = Chain(settings(folder, checkpoint_records=5), signer)
    for n in range(20):
        chain.append(entries([str(n)]))
    verdict = verify(folder, [signer.verifier])
    assert verdict.is_whole and verdict.checkpoints >= 3


def test_a_checkpoint_is_due_after_some_time(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    chain = Chain(settings(folder, checkpoint_secs=1e-9), Signer.generate())
    chain.append(entries(["a"]))
    chain.append([])
    assert verify(folder).checkpoints == 1


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("whole", [True, False], ids=["whole lines", "half a line"])
def test_a_write_that_no_head_tells_of_is_cut_off_and_recorded(tmp_path: Path, whole: bool) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"]], rotate_bytes=1 << 20)
    before = (folder / "head.json").read_bytes()
    write_log(folder, [["b"]], rotate_bytes=1 << 20)
    # as if it had ended before it wrote its head
    (folder / "head.json").write_bytes(before)
    (file,) = log_files(folder)
    cut = len(file.read_bytes()) - json.loads(before)["end"] - (0 if whole else 7)
    if not whole:
        os.truncate(file, file.stat().st_size - 7)
    verdict = verify(folder)
    assert verdict.is_whole
    assert "an interrupted write after record 2" in "\n".join(verdict.notes)

    write_log(folder, [["c"]], rotate_bytes=1 << 20)
    assert texts(folder) == ["a", "c"]
    (repair,) = records(folder, Filter(since_seq=2, limit=1))
    assert (repair.kind, repair.file, repair.cut_bytes) == ("repair", 1, cut)
    (aside,) = folder.glob("*.unfinished-*")
    assert aside.read_bytes().startswith(b'{"seq":3,')
    assert verify(folder).is_whole


def test_a_file_that_was_begun_and_no_head_tells_of(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"], ["b" * 2000]])
    before = (folder / "head.json").read_bytes()
    write_log(folder, [["c"]])
    (folder / "head.json").write_bytes(before)
    assert len(log_files(folder)) == 2
    assert verify(folder).is_whole
    write_log(folder, [["d"]])
    assert [text[0] for text in texts(folder)] == ["a", "b", "d"]
    assert verify(folder).is_whole


def test_a_log_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    (folder / "audit-000001.jsonl").write_bytes(b'{"seq":1,"prev":"000')
    write_log(folder, [["a"]])
    assert texts(folder) == ["a"]
    assert [record.kind for record in records(folder, Filter())] == ["open", "repair", "event"]


@pytest.mark.parametrize("fails", ["fdatasync", "write_all"])
def test_a_group_that_fails_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    folder = tmp_path / "audit"
    chain = write_log(folder, [["a"]])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if fails == "fdatasync":
            patched.setattr(os, "fdatasync", full)
        else:
            patched.setattr(chain_module, "write_all", full)
        with pytest.raises(OSError, match="No space"):
            chain.append(entries(["b"]))
    assert {path.name: path.read_bytes() for path in log_files(folder)} == {
        name: data for name, data in before.items() if name != "head.json"
    }
    assert (folder / "head.json").read_bytes() == before["head.json"]
    chain.append(entries(["c"]))
    assert texts(folder) == ["a", "c"]
    assert verify(folder).is_whole


# ── tampering while the server runs, or between two starts ──────────────────────────────────────────────────────────


def test_nothing_is_written_after_a_log_that_was_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"], ["b"]])
    (file,) = log_files(folder)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(Damaged, match=r"record 3 does not end at byte \d+"):
        Chain(settings(folder), None).append(entries(["c"]))


def test_nor_after_one_whose_head_is_missing_or_changed(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"], ["b"]])
    head = folder / "head.json"
    good = head.read_bytes()
    head.write_bytes(good.replace(b'"seq":3', b'"seq":2'))
    with pytest.raises(Damaged, match="its hash is not that of its content"):
        Chain(settings(folder), None).append(entries(["c"]))
    head.unlink()
    with pytest.raises(Damaged, match=r"head\.json is missing"):
        Chain(settings(folder), None).append(entries(["c"]))


def test_nor_after_one_whose_last_file_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"]])
    (file,) = log_files(folder)
    file.unlink()
    with pytest.raises(Damaged, match=r"audit-000001.jsonl is missing"):
        Chain(settings(folder), None).append(entries(["c"]))


def test_a_running_writer_notices_an_older_copy(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    chain = write_log(folder, [["a"]])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    chain.append(entries(["b"]))
    for name, data in before.items():
        (folder / name).write_bytes(data)
    with pytest.raises(Damaged, match="another or an older log"):
        chain.append(entries(["c"]))


def test_a_running_writer_does_not_begin_anew_in_place_of_a_removed_log(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    chain = write_log(folder, [["a"]])
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(Damaged, match="has been removed"):
        chain.append(entries(["b"]))
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        chain.append(entries(["b"]))
    assert not folder.exists()


def test_a_symbolic_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write_log(folder, [["a"]])
    (file,) = log_files(folder)
    other = file.rename(tmp_path / "elsewhere")
    file.symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        Chain(settings(folder), None).append(entries(["b"]))


def test_forged_records_behind_the_head_are_not_signed(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    signer = Signer.generate()
    write_log(folder, [["a"]], signer)
    head = (folder / "head.json").read_bytes()
    # somebody without the key appends a record that fits, then one whose head fits too
    write_log(folder, [["forged"]])
    forged = (folder / "head.json").read_bytes()
    (folder / "head.json").write_bytes(head)
    write_log(folder, [["b"]], signer)
    assert texts(folder) == ["a", "b"]
    assert verify(folder, [signer.verifier]).is_whole
    (folder / "head.json").write_bytes(forged)
    with pytest.raises(Damaged):
        Chain(settings(folder), signer).append(entries(["c"]))


def test_files_that_are_not_the_logs_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    for name in ("audit-1.jsonl", "audit-0000001.jsonl", "notes.txt"):
        (folder / name).write_text("mine")
    write_log(folder, [["a"]])
    with Folder.locked(folder, shared=True) as locked:
        assert locked.numbers() == [1]
    assert verify(folder).is_whole
