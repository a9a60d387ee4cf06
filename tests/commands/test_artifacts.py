"""`penstock models sign` and what goes with it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.audit.reading import Filter, records
from penstock.cli import main
from penstock.trust.releases import Releases, Served
from trusted_models import Authority, content, write, write_private

Run = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "m"
    for version in (1, 2):
        write(folder / str(version) / "model.py", b"# the model")
    write(folder / "config.pbtxt", b"")
    return folder


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(*words)`: what `penstock models` says, which succeeds; `fails=CODE`: it does not."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, fails: int = 0) -> str:
        code = main(["models", *map(str, words)])
        out, err = capsys.readouterr()
        assert code == fails, err
        return err if fails else out

    return call


def test_from_keys_to_a_verified_model(run: Run, model: Path) -> None:
    run("keygen", "release")
    assert stat.S_IMODE(Path("release.key").stat().st_mode) == 0o600
    assert "release.key is there already" in run("keygen", "release", fails=1)
    assert run("sign", model, "--key=release.key", "--serial=4") == (
        "signed m/1, serial 4\nsigned m/2, serial 4\n"
    )
    assert "verified m/2, serial 4" in run("verify", model, "--public-key=release.pub")
    write(model / "1" / "model.py", b"# another")
    run("verify", model, "--public-key=release.pub", "--version=2")
    error = run("verify", model, "--public-key=release.pub", fails=1)
    assert error.startswith("penstock: m/1: ContentChanged: '1/model.py' is not what was signed")
    run("sign", model, "--key=release.key", "--version=1")
    run("verify", model, "--public-key=release.pub")


def test_at_rest(run: Run, model: Path) -> None:
    run("keygen", "release")
    run("sign", model, "--key=release.key")
    plain = content(model)
    for name in ("old", "new"):
        run("keygen", "--kek", name)
        assert stat.S_IMODE(Path(f"{name}.kek").stat().st_mode) == 0o600
    old, new = (f"--kek=file:{Path(name).absolute()}" for name in ("old.kek", "new.kek"))
    assert run("encrypt", model, old) == "encrypted 1 file of m/1\nencrypted 1 file of m/2\n"
    assert run("encrypt", model, old) == "m/1 is encrypted already\nm/2 is encrypted already\n"
    assert "no key-encryption key" in run("encrypt", model, fails=1)
    assert "WrongKeyEncryptionKey" in run("decrypt", model, new, fails=1)
    assert run("rewrap", model, new, old).startswith("rewrapped 1 file of m/1")
    run("verify", model, "--public-key=release.pub", new)
    run("verify", model, "--public-key=release.pub", old, fails=1)
    run("sign", model, "--key=release.key", "--serial=1", new)
    run("verify", model, "--public-key=release.pub", new)
    run("decrypt", model, new)
    assert run("decrypt", model, new, "--version=1") == "m/1 is not encrypted\n"
    assert content(model).keys() == plain.keys()
    assert content(model)["1/model.py"] == plain["1/model.py"]


def test_with_a_certificate(run: Run, model: Path, tmp_path: Path) -> None:
    authority = Authority()
    authority.write(tmp_path / "root.pem")
    leaf = Authority()
    leaf.key, leaf.certificate = authority.issue()
    leaf.write(tmp_path / "leaf.pem")
    write_private(tmp_path / "leaf.key", leaf.key)
    write_private(tmp_path / "root.key", authority.key)
    run("sign", model, "--key=leaf.key", "--certificate=leaf.pem")
    run("verify", model, "--ca=root.pem", "--signer=spiffe://example.org/*")
    assert "WrongKey" in run("verify", model, "--ca=root.pem", "--signer=x", fails=1)
    assert "--ca needs --signer" in run("verify", model, "--ca=root.pem", fails=2)
    words = ("sign", model, "--key=root.key", "--certificate=leaf.pem")
    assert "not the key of the first certificate" in run(*words, fails=2)


def test_by_the_policy_of_the_settings(run: Run, model: Path) -> None:
    run("keygen", "release")
    run("sign", model, "--key=release.key")
    assert "no policy asks for a signature of 'm'" in run("verify", model, fails=2)
    Path("penstock.toml").write_text(
        '[artifacts]\nstate_file = "s.json"\n[[artifacts.trust]]\npublic_keys = ["release.pub"]\n'
    )
    assert "verified m/1" in run("verify", model)
    # nothing was served by that
    assert not Path("s.json").exists()


def test_keys_that_cant_be_read_are_one_line_that_says_why(run: Run, model: Path) -> None:
    """There is no server, and no log of it."""
    run("keygen", "release")
    run("sign", model, "--key=release.key")
    error = run("verify", model, "--public-key=nope.pub", fails=1)
    assert error.startswith(
        "penstock: m/1: WrongKey: the keys that the policy trusts can't be read: "
    )
    assert error.endswith("nope.pub: can't be read: No such file or directory\n")
    assert len(error.splitlines()) == 1
    run("keygen", "--kek", "mine")
    run("encrypt", model, f"--kek=file:{Path('mine.kek').absolute()}")
    error = run("verify", model, "--public-key=release.pub", "--kek=file:/nope.kek", fails=1)
    assert "WrongKeyEncryptionKey: no key-encryption key can be read: " in error
    assert "/nope.kek" in error and len(error.splitlines()) == 1


def test_the_record(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    Releases(path).record("m", 1, Served(7, "digest"))
    file = f"--state-file={path}"
    assert "7" in run("trust", "list", file)
    assert "no release of 'n' was served" in run("trust", "reset", "n", file, fails=1)
    assert run("trust", "reset", "m", file) == "forgotten\n"
    assert Releases(path).all() == {}


def test_that_the_record_was_reset_is_recorded(run: Run, tmp_path: Path) -> None:
    """It switches the protection against old releases off, once."""
    log = tmp_path / "log"
    log.mkdir()
    Path("penstock.toml").write_text(
        f'[artifacts]\nstate_file = "s.json"\n[audit]\nfolder = "{log}"\n'
    )
    Releases(tmp_path / "s.json").record("m", 1, Served(7, "digest"))
    run("trust", "reset", "m", "--version=1")
    run("trust", "reset", "n", fails=1)
    run("trust", "list")
    found = records(log, Filter(action="trust"))
    assert [(each.action, each.outcome, each.model, each.reason) for each in found] == [
        ("trust.reset", "allowed", "m", ""),
        ("trust.reset", "done", "m", ""),
        ("trust.reset", "allowed", "n", ""),
        ("trust.reset", "failed", "n", "no release of 'n' was served"),
    ]
    assert found[0].details == {"version": "1"}
    assert found[0].principal.startswith("cli:")
    # what can't be recorded isn't done
    Releases(tmp_path / "s.json").record("m", 1, Served(8, "digest"))
    (log / "head.json").unlink()
    assert "the audit log can't be written" in run("trust", "reset", "m", fails=1)
    assert Releases(tmp_path / "s.json").of("m")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sign", "missing", "--key=k"), "k: can't be read"),
        (("verify", "missing", "--public-key=k"), "missing: can't be read"),
        (("encrypt", "missing"), "missing: can't be read"),
        (("decrypt", "models"), "no version folder"),
        (("decrypt", "models/m", "--version=3"), "there is no version 3"),
        (("decrypt", "models/m", "--kek=hunter2"), "no reference to a secret"),
    ],
)
def test_wrong_use(run: Run, model: Path, words: tuple[str, ...], said: str) -> None:
    error = run(*words, fails=2)
    assert said in error
    assert "hunter2" not in error


def test_what_cant_be_recorded_is_not_forgotten_and_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    Releases(path).record("m", 1, Served(7, "digest"))
    (tmp_path / "audit").write_text("no folder")
    Path("penstock.toml").write_text('[audit]\nfolder = "audit"\n')
    error = run("trust", "reset", "m", f"--state-file={path}", fails=1)
    assert error.startswith("penstock: the audit log can't be written: ")
    assert len(error.splitlines()) == 1
    assert Releases(path).of("m")
