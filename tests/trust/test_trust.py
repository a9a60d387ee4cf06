"""What may be loaded, and what it is loaded from: each way to tamper with a model is a named error."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from penstock import errors
from penstock.errors import (
    ContentChanged,
    Downgraded,
    EncryptionBroken,
    FileAdded,
    FileDamaged,
    FileMissing,
    LinkOutside,
    LoadFailed,
    NotEncrypted,
    PickleRefused,
    ReleasesUnreadable,
    SignatureInvalid,
    SignatureMissing,
    Unavailable,
    Untrusted,
    WrongKey,
    WrongKeyEncryptionKey,
    WrongModel,
)
from penstock.trust.artifact import Judgement
from penstock.trust.at_rest import decrypt_version, encrypt_version, rewrap_version
from penstock.trust.kek import KeyEncryptionKey, KeyRing
from trusted_models import Workshop, content, package, write, write_private, write_public


def refused(workshop: Workshop, kind: type[Untrusted], *rules: object, version: int = 1) -> str:
    """The text of the refusal, which leaves no copy and shows no path of the server's."""
    with pytest.raises(Untrusted) as raised:
        workshop.stage(version, *rules)  # type: ignore[arg-type]
    text = str(raised.value)
    assert type(raised.value) is kind, text
    assert str(workshop.folder) not in text
    assert content(workshop.folder / "staged") == content(workshop.folder / "memory") == {}
    assert workshop.judgements[-1].outcome == kind.__name__
    return text


class TestWhatIsServed:
    def test_the_copy_is_what_was_signed(self, workshop: Workshop) -> None:
        write(workshop.model / "2" / "model.py", b"other")
        write(workshop.model / "1" / "__pycache__" / "model.cpython-311.pyc", b"planted")
        workshop.sign()
        staged = workshop.stage()
        assert staged is not None
        expected = content(workshop.model)
        for left_out in ("2/model.py", "1/__pycache__/model.cpython-311.pyc", "1/model.sig"):
            del expected[left_out]
        assert content(staged.model_dir) == expected
        assert staged.model_dir.name == "m"
        assert stat.S_IMODE(staged.root.stat().st_mode) == 0o700
        found = staged.verified
        assert (found.serial, found.encrypted, found.files) == (5, False, 4)
        (judgement,) = workshop.judgements
        assert (judgement.outcome, judgement.serial) == ("verified", 5)
        assert judgement.signer == found.signer != ""
        staged.close()
        assert not staged.root.exists()

    def test_nothing_is_copied_where_nothing_is_asked(self, workshop: Workshop) -> None:
        assert workshop.stage(1, workshop.rule(require="none")) is None
        assert workshop.stage(1, workshop.rule(models=("other",))) is None
        assert not (workshop.folder / "staged").exists()

    def test_a_change_after_the_check_changes_nothing(self, workshop: Workshop) -> None:
        workshop.sign()
        staged = workshop.stage()
        assert staged is not None
        model = workshop.model / "1" / "model.py"
        before = model.read_bytes()
        model.write_bytes(b"evil")
        assert (staged.model_dir / "1" / "model.py").read_bytes() == before

    def test_a_signature_beside_the_versions_holds_for_all(self, workshop: Workshop) -> None:
        workshop.sign()
        (workshop.model / "1" / "model.sig").rename(workshop.model / "model.sig")
        assert workshop.stage() is not None

    def test_links_of_the_servers_own_may_lead_anywhere(self, workshop: Workshop) -> None:
        """Those of models that are added while it runs."""
        workshop.sign()
        links = workshop.folder / "links"
        links.mkdir()
        (links / "m").symlink_to(workshop.model)
        artifact = replace(workshop.artifact(), folder=links / "m")
        with pytest.raises(LinkOutside):
            workshop.trust().stage(artifact)
        assert workshop.trust(links=links).stage(artifact) is not None

    def test_the_first_rule_that_fits_holds(self, workshop: Workshop) -> None:
        other = write_public(workshop.folder / "other.pub", ec.generate_private_key(ec.SECP384R1()))
        strict = workshop.rule(models=("m",), public_keys=(other,))
        workshop.sign()
        refused(workshop, WrongKey, strict, workshop.rule())
        assert workshop.stage(1, workshop.rule(models=("[a-m]",)), strict) is not None

    def test_a_rule_of_a_tenant_is_for_what_its_requests_give(self, workshop: Workshop) -> None:
        theirs = write_public(workshop.folder / "a.pub", ec.generate_private_key(ec.SECP256R1()))
        rules = (workshop.rule(tenants=("a",), public_keys=(theirs,)), workshop.rule())
        workshop.sign()
        trust = workshop.trust(*rules)
        assert trust.stage(workshop.artifact()) is not None
        assert trust.stage(workshop.artifact(tenant="b")) is not None
        with pytest.raises(WrongKey):
            trust.stage(workshop.artifact(tenant="a"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap(folder: Path, name: str) -> None:
    one, other = folder / name, folder / "deep" / "weights.bin"
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def link(path: Path, outside: Path) -> None:
    target = outside / "outside" / path.name
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    path.symlink_to(target)


TAMPERING: list[tuple[type[Untrusted], str, Callable[[Workshop], object]]] = [
    (ContentChanged, "'1/model.py'", lambda w: flip(w.model / "1" / "model.py")),
    (ContentChanged, "'1/deep/weights.bin'", lambda w: cut(w.model / "1" / "deep" / "weights.bin")),
    (ContentChanged, "'config.pbtxt'", lambda w: flip(w.model / "config.pbtxt")),
    (ContentChanged, "'1/release.json'", lambda w: flip(w.model / "1" / "release.json")),
    (ContentChanged, "'1/deep/weights.bin'", lambda w: swap(w.model / "1", "model.py")),
    (FileAdded, "'1/evil.py'", lambda w: write(w.model / "1" / "evil.py", b"")),
    (FileAdded, "'labels.txt'", lambda w: write(w.model / "labels.txt", b"")),
    (FileAdded, "'config.yaml'", lambda w: write(w.model / "config.yaml", b"")),
    (FileMissing, "'1/model.py'", lambda w: (w.model / "1" / "model.py").unlink()),
    (FileMissing, "'config.pbtxt'", lambda w: (w.model / "config.pbtxt").unlink()),
    (LinkOutside, "'1/model.py'", lambda w: link(w.model / "1" / "model.py", w.folder)),
    (LinkOutside, "'1/deep'", lambda w: link(w.model / "1" / "deep", w.folder)),
    (LinkOutside, "'1/pipe'", lambda w: os.mkfifo(w.model / "1" / "pipe")),
    (LinkOutside, "'1/model.sig'", lambda w: link(w.model / "1" / "model.sig", w.folder)),
    (LinkOutside, "folder is a symbolic link", lambda w: link(w.model, w.folder)),
    (SignatureMissing, "expected 1/model.sig", lambda w: (w.model / "1" / "model.sig").unlink()),
    (SignatureInvalid, "no bundle", lambda w: cut(w.model / "1" / "model.sig")),
]


@pytest.mark.parametrize(("kind", "said", "tamper"), TAMPERING)
def test_tampering(
    workshop: Workshop, kind: type[Untrusted], said: str, tamper: Callable[[Workshop], object]
) -> None:
    workshop.sign()
    tamper(workshop)
    assert said in refused(workshop, kind)


def test_every_error_of_trust_is_named() -> None:
    assert len(Untrusted.__subclasses__()) == 17
    assert issubclass(Untrusted, errors.LoadFailed)


class TestWhoHasSigned:
    def test_another_key(self, workshop: Workshop) -> None:
        workshop.key = ec.generate_private_key(ec.SECP256R1())
        workshop.sign()
        assert "the policy trusts" in refused(workshop, WrongKey)

    def test_another_key_that_says_it_is_this_one(self, workshop: Workshop) -> None:
        workshop.sign()
        signature = workshop.model / "1" / "model.sig"
        ours = signature.read_text()
        workshop.key = ec.generate_private_key(ec.SECP256R1())
        workshop.sign()
        theirs = signature.read_text()
        hint = ours.split('"hint": "')[1].split('"')[0]
        other = theirs.split('"hint": "')[1].split('"')[0]
        signature.write_text(theirs.replace(other, hint))
        refused(workshop, SignatureInvalid)

    def test_keys_that_can_not_be_read(self, workshop: Workshop) -> None:
        workshop.sign()
        workshop.public.unlink()
        assert "log" in refused(workshop, WrongKey)


class TestWhatItIsOf:
    def test_another_model(self, workshop: Workshop) -> None:
        workshop.sign()
        workshop.model = workshop.model.rename(workshop.repository / "n")
        assert "'m'" in refused(workshop, WrongModel)

    def test_another_version(self, workshop: Workshop) -> None:
        workshop.sign()
        shutil.copytree(workshop.model / "1", workshop.model / "2")
        assert "version 1, not of 2" in refused(workshop, WrongModel, version=2)

    def test_a_release_of_another_version(self, workshop: Workshop) -> None:
        """Whoever signs by another tool may have copied the file."""
        workshop.sign()
        shutil.copytree(workshop.model / "1", workshop.model / "2")
        sign_with_package(workshop, 2)
        assert "version 1 of the model 'm'" in refused(workshop, WrongModel, version=2)

    def test_a_signature_that_is_of_no_version(self, workshop: Workshop) -> None:
        """That of an ensemble, whose version folders are empty."""
        shutil.rmtree(workshop.model / "1")
        (workshop.model / "1").mkdir()
        sign_with_package(workshop, 1, workshop.model / "model.sig")
        refused(workshop, SignatureMissing, workshop.rule(require_release=False))
        (workshop.model / "model.sig").unlink()
        workshop.sign()
        assert workshop.stage() is not None


class TestDowngrades:
    def test_an_older_release_in_the_place_of_a_newer_one(self, workshop: Workshop) -> None:
        workshop.sign(serial=5)
        old = workshop.folder / "old"
        shutil.copytree(workshop.model, old)
        write(workshop.model / "1" / "model.py", b"newer")
        workshop.sign(serial=6)
        workshop.serve().close()
        shutil.rmtree(workshop.model)
        shutil.copytree(old, workshop.model)
        assert "serial 5, and 6 was served before" in refused(workshop, Downgraded)
        assert workshop.stage(1, workshop.rule(allow_rollback=True)) is not None

    def test_what_was_verified_only_is_not_what_was_served(self, workshop: Workshop) -> None:
        trust = workshop.trust()
        for serial in (6, 5):
            workshop.sign(serial=serial)
            assert trust.stage(workshop.artifact()) is not None

    def test_other_files_of_the_same_serial(self, workshop: Workshop) -> None:
        workshop.sign()
        workshop.serve().close()
        write(workshop.model / "1" / "model.py", b"other")
        workshop.sign()
        assert "expected a higher one" in refused(workshop, Downgraded)

    def test_an_older_version_alone(self, workshop: Workshop) -> None:
        write(workshop.model / "2" / "model.py", b"newer")
        workshop.sign(1)
        workshop.sign(2)
        workshop.serve(2).close()
        assert workshop.stage(1) is not None
        shutil.rmtree(workshop.model / "2")
        shutil.rmtree(workshop.folder / "staged")
        assert "version 2 was served before" in refused(workshop, Downgraded)
        trust = workshop.trust()
        assert trust.releases.reset("m", 2)
        assert trust.stage(workshop.artifact()) is not None

    def test_a_version_that_the_server_has_taken_back(self, workshop: Workshop) -> None:
        write(workshop.model / "2" / "model.py", b"newer")
        workshop.sign(1)
        workshop.sign(2)
        workshop.serve(2).close()
        workshop.trust().withdrawn("m", 2)
        shutil.rmtree(workshop.model / "2")
        assert workshop.trust().stage(workshop.artifact()) is not None

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_what_is_no_folder_in_the_place_of_a_newer_version(
        self, workshop: Workshop, kind: str
    ) -> None:
        write(workshop.model / "2" / "model.py", b"newer")
        workshop.sign(1)
        workshop.sign(2)
        workshop.serve(2).close()
        shutil.rmtree(workshop.model / "2")
        if kind == "file":
            write(workshop.model / "2", b"")
        else:
            (workshop.model / "2").symlink_to("nowhere")
        assert "version 2 was served before" in refused(workshop, Downgraded)

    def test_an_older_configuration_that_asks_for_an_older_version(
        self, workshop: Workshop
    ) -> None:
        config, old = workshop.model / "config.pbtxt", workshop.folder / "old"
        write(config, b"version_policy { specific { versions: [1] } }\n")
        workshop.sign(1, serial=5)
        workshop.serve(1).close()
        shutil.copytree(workshop.model, old)
        write(config, b"version_policy { all {} }\n")
        write(workshop.model / "2" / "model.py", b"newer")
        workshop.sign(1, serial=6)
        workshop.sign(2, serial=7)
        workshop.serve(2).close()
        assert workshop.stage(1) is not None
        shutil.rmtree(workshop.folder / "staged")
        shutil.copytree(old, workshop.model, dirs_exist_ok=True)
        assert "not that of the release 7" in refused(workshop, Downgraded)
        assert workshop.stage(1, workshop.rule(allow_rollback=True)) is not None

    def test_lowest_versions_and_serials(self, workshop: Workshop) -> None:
        workshop.sign(serial=5)
        version, serial = workshop.rule(minimum_version=2), workshop.rule(minimum_serial=6)
        assert "serves 2 and later" in refused(workshop, Downgraded, version)
        assert "serves 6 and later" in refused(workshop, Downgraded, serial)

    def test_a_record_that_can_not_be_read(self, workshop: Workshop) -> None:
        workshop.sign()
        workshop.serve().close()
        record = workshop.folder / "state" / "releases.json"
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
        cut(record)
        refused(workshop, ReleasesUnreadable)


class TestEncrypted:
    def test_signed_and_encrypted(self, workshop: Workshop) -> None:
        workshop.sign()
        plain = content(workshop.model)
        assert encrypt_version(workshop.model, 1, workshop.ring) == 2
        assert {"1/model.py.penc", "1/deep/weights.bin.penc"} <= content(workshop.model).keys()
        staged = workshop.stage(1, workshop.rule(require="signed+encrypted"))
        assert staged is not None
        assert staged.root.parent == workshop.folder / "memory"
        signature = plain.pop("1/model.sig")
        assert content(staged.model_dir) == plain
        staged.close()
        assert decrypt_version(workshop.model, 1, workshop.ring) == 2
        assert content(workshop.model) == {**plain, "1/model.sig": signature}

    def test_it_can_be_signed_when_it_is_encrypted(self, workshop: Workshop) -> None:
        encrypt_version(workshop.model, 1, workshop.ring)
        workshop.sign()
        assert workshop.stage() is not None

    def test_encrypted_alone(self, workshop: Workshop) -> None:
        plain = content(workshop.model)
        encrypt_version(workshop.model, 1, workshop.ring)
        staged = workshop.stage(1, workshop.rule(require="none"))
        assert staged is not None
        assert content(staged.model_dir) == plain
        assert workshop.judgements[-1].outcome == "decrypted"

    def test_a_file_in_plain(self, workshop: Workshop) -> None:
        workshop.sign()
        inner = workshop.model / "1" / "deep" / "weights.bin"
        plain = inner.read_bytes()
        encrypt_version(workshop.model, 1, workshop.ring)
        inner.with_name("weights.bin.penc").unlink()
        inner.write_bytes(plain)
        rule = workshop.rule(require="signed+encrypted")
        assert "'1/deep/weights.bin'" in refused(workshop, NotEncrypted, rule)
        assert workshop.stage() is not None

    def test_twice(self, workshop: Workshop) -> None:
        workshop.sign()
        plain = (workshop.model / "1" / "model.py").read_bytes()
        encrypt_version(workshop.model, 1, workshop.ring)
        write(workshop.model / "1" / "model.py", plain)
        refused(workshop, FileAdded)

    def test_another_key_encryption_key(self, workshop: Workshop) -> None:
        workshop.sign()
        encrypt_version(workshop.model, 1, workshop.ring)
        old = workshop.kek
        workshop.keys["env:KEK"] = new = KeyEncryptionKey(os.urandom(32))
        text = refused(workshop, WrongKeyEncryptionKey)
        assert old.id.hex() in text
        assert new.id.hex() in text

    def test_rewrapping(self, workshop: Workshop) -> None:
        workshop.sign()
        encrypt_version(workshop.model, 1, workshop.ring)
        path = workshop.model / "1" / "model.py.penc"
        size, changed_ns = path.stat().st_size, path.stat().st_mtime_ns
        new = KeyEncryptionKey(os.urandom(32))
        both = KeyRing((new, workshop.kek))
        assert rewrap_version(workshop.model, 1, both) == 2
        assert rewrap_version(workshop.model, 1, both) == 0
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, changed_ns)
        refused(workshop, WrongKeyEncryptionKey)
        workshop.keys["env:KEK"] = new
        assert workshop.stage() is not None

    @pytest.mark.parametrize("tamper", [flip, cut])
    def test_tampering(self, workshop: Workshop, tamper: Callable[[Path], None]) -> None:
        workshop.sign()
        encrypt_version(workshop.model, 1, workshop.ring)
        tamper(workshop.model / "1" / "deep" / "weights.bin.penc")
        assert "'1/deep/weights.bin'" in refused(workshop, EncryptionBroken)

    def test_files_that_were_swapped(self, workshop: Workshop) -> None:
        encrypt_version(workshop.model, 1, workshop.ring)
        one = workshop.model / "1" / "model.py.penc"
        shutil.copy(workshop.model / "1" / "deep" / "weights.bin.penc", one)
        rule = workshop.rule(require="none")
        assert "put in another's place" in refused(workshop, EncryptionBroken, rule)


class TestPickles:
    def test_they_are_refused_by_default(self, workshop: Workshop) -> None:
        write(workshop.model / "1" / "weights.pkl", b"\x80\x04N.")
        workshop.sign()
        assert "'1/weights.pkl'" in refused(workshop, PickleRefused)
        refused(workshop, PickleRefused, workshop.rule(require="none"))
        with pytest.raises(PickleRefused):
            workshop.stage(1, allow_pickle=("other*",))
        assert workshop.stage(1, workshop.rule(require="none"), allow_pickle=("m",)) is None
        assert workshop.stage(1, allow_pickle=("m",)) is not None

    def test_a_broken_download_is_no_reason_to_allow_them(self, workshop: Workshop) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("net/constants.pkl", b"x" * 100)
        write(workshop.model / "1" / "model.pt", content.getvalue()[:-30])
        text = refused(workshop, FileDamaged, workshop.rule(require="none"))
        assert text.startswith("'1/model.pt' is damaged or cut: ")
        assert "pickle" not in text
        write(workshop.model / "1" / "model.pt", b"")
        text = refused(workshop, FileDamaged, workshop.rule(require="none"))
        assert text.startswith("'1/model.pt' is damaged or cut: it is empty")
        write(workshop.model / "1" / "model.pt", b"\x80\x04N.")
        text = refused(workshop, PickleRefused, workshop.rule(require="none"))
        assert "--artifacts-allow-pickle" in text

    @pytest.mark.parametrize("linked", ["1", "1/deep"])
    def test_in_a_folder_that_is_linked_there(self, workshop: Workshop, linked: str) -> None:
        place = workshop.model / linked
        shutil.move(place, workshop.folder / "elsewhere")
        place.symlink_to(workshop.folder / "elsewhere")
        # and a circle
        (workshop.folder / "elsewhere" / "again").symlink_to(workshop.model)
        none = workshop.rule(require="none")
        assert workshop.stage(1, none) is None
        write(workshop.folder / "elsewhere" / "weights.pkl", b"")
        assert f"'{linked}/weights.pkl'" in refused(workshop, PickleRefused, none)

    def test_what_is_no_file_is_not_waited_for(self, workshop: Workshop) -> None:
        fifo = workshop.model / "1" / "fifo"
        os.mkfifo(fifo)
        with ThreadPoolExecutor(1) as pool:
            staged = pool.submit(workshop.stage, 1, workshop.rule(require="none"))
            try:
                assert staged.result(60) is None
            finally:
                # whoever waits for a writer is let go
                os.close(os.open(fifo, os.O_RDWR))

    def test_inside_an_encrypted_file(self, workshop: Workshop) -> None:
        write(workshop.model / "1" / "weights", b"\x80\x04cos\nsystem\n.")
        encrypt_version(workshop.model, 1, workshop.ring)
        refused(workshop, PickleRefused, workshop.rule(require="none"))


def test_what_an_observer_refuses_is_not_loaded(workshop: Workshop) -> None:
    """The audit log, where it can't be written."""

    def observe(judgement: Judgement) -> None:
        raise Unavailable(judgement.outcome)

    workshop.sign()
    trust = workshop.trust()
    trust.observe(observe)
    with pytest.raises(Unavailable, match="verified"):
        trust.stage(workshop.artifact())
    assert content(workshop.folder / "staged") == {}


def test_a_full_disk_shows_no_path(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(workshop.folder))

    workshop.sign()
    monkeypatch.setattr("penstock.trust.copying._copy", full)
    with pytest.raises(LoadFailed, match="No space left") as raised:
        workshop.stage()
    assert str(workshop.folder) not in str(raised.value)
    assert content(workshop.folder / "staged") == {}


class TestAfterACrash:
    def test_what_was_verified_is_taken_over(self, workshop: Workshop) -> None:
        workshop.sign()
        before = workshop.trust()
        staged = before.stage(workshop.artifact())
        abandoned = before.staging.draft("m", in_memory=False)
        trust = workshop.trust()
        trust.staging.inherit()
        shutil.rmtree(workshop.model)
        assert trust.stage(workshop.artifact()) == staged
        assert not abandoned.root.exists()
        trust.staging.end_unclaimed()
        assert staged is not None
        assert staged.model_dir.exists()

    def test_what_nobody_claims_is_removed(self, workshop: Workshop) -> None:
        workshop.sign()
        staged = workshop.stage()
        trust = workshop.trust()
        trust.staging.inherit()
        trust.staging.end_unclaimed()
        assert staged is not None
        assert not staged.root.exists()


def sign_with_package(workshop: Workshop, version: int, signature: Path | None = None) -> None:
    key = write_private(workshop.folder / "release.key", workshop.key)
    others = [
        part
        for folder in workshop.model.iterdir()
        if folder.name.isdigit() and folder.name != str(version)
        for part in ("--ignore-paths", folder)
    ]
    signature = signature or workshop.model / str(version) / "model.sig"
    package("sign", "key", workshop.model, "--private_key", key, "--signature", signature, *others)


class TestThePackage:
    """Of OpenSSF: what it signs is served here, and what is signed here it verifies."""

    def test_it_signs(self, workshop: Workshop) -> None:
        sign_with_package(workshop, 1)
        assert "release.json" in refused(workshop, SignatureMissing)
        staged = workshop.stage(1, workshop.rule(require_release=False))
        assert staged is not None
        staged.close()
        flip(workshop.model / "1" / "model.py")
        refused(workshop, ContentChanged, workshop.rule(require_release=False))

    def test_it_signs_a_release(self, workshop: Workshop) -> None:
        workshop.sign()
        (workshop.model / "1" / "model.sig").unlink()
        sign_with_package(workshop, 1)
        staged = workshop.stage()
        assert staged is not None
        assert staged.verified.serial == 5

    def test_it_verifies(self, workshop: Workshop) -> None:
        write(workshop.model / "2" / "model.py", b"other")
        workshop.sign()
        signature = workshop.model / "1" / "model.sig"
        keys = ("--public_key", workshop.public)
        package("verify", "key", workshop.model, *keys, "--signature", signature)
