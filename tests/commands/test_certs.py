"""`penstock certs`, as people use it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*arguments: str) -> int:
    return main(["certs", *arguments])


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run("list", "--json") == 0
    entries: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return entries


def test_from_nothing_to_a_rotated_ca(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", "--trust-domain", "example.org", "--name", "Example") == 0
    assert run("issue", "server", "localhost", "--lifetime", "12h") == 0
    assert run("issue", "client", "loader", "--key-type", "p384") == 0
    shown = capsys.readouterr().out
    assert "server/localhost: DNS:localhost, IP:127.0.0.1, IP:::1, spiffe://example.org" in shown
    assert str(folder / "certs/client/loader") in shown
    ca, server, client = listed(capsys)
    assert ca["name"].startswith("Example ")
    assert [e["kind"] for e in (ca, server, client)] == ["ca", "server", "client"]
    assert client["uris"] == ["spiffe://example.org/client/loader"]
    assert {e["state"] for e in (ca, server, client)} == {"valid"}
    assert run("renew") == 0
    assert "nothing is due" in capsys.readouterr().out
    assert run("renew", "loader") == 0
    assert listed(capsys)[2]["serial"] != client["serial"]
    assert run("init", "--rotate") == 0
    assert run("init", "--retire") == 2
    assert "First: penstock certs renew" in capsys.readouterr().err
    assert run("renew") == 0
    assert "server/localhost" in capsys.readouterr().out
    assert run("init", "--retire") == 0
    assert [e["state"] for e in listed(capsys)] == ["valid", "retired", "valid", "valid"]
    assert run("list") == 0
    table = capsys.readouterr().out
    assert "spiffe://example.org/server/localhost" in table
    assert "retired" in table


def test_renew_all_and_two_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init") == 0
    assert run("issue", "server", "a", "--dns", "b.org", "--ip", "10.0.0.1") == 0
    capsys.readouterr()
    assert run("issue", "client", "a") == 0
    assert capsys.readouterr().out.startswith("client/a: until 20")
    before = {e["serial"] for e in listed(capsys)}
    assert run("renew", "a", "server/a") == 0
    after = {e["serial"] for e in listed(capsys)}
    assert len(before & after) == 1
    assert run("renew", "--all") == 0
    assert len(after & {e["serial"] for e in listed(capsys)}) == 1


def test_the_cas_key_may_have_a_passphrase(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = folder / "passphrase"
    secret.write_text("planted-hunter2\n")
    secret.chmod(0o600)
    assert run("init", "--passphrase-from", f"file:{secret}") == 0
    assert run("issue", "client", "x") == 0
    key = folder / "certs/authority/0001.key"
    command = ["openssl", "pkey", "-in", str(key), "-passin", f"file:{secret}", "-noout"]
    subprocess.run(command, check=True)
    secret.unlink()
    assert run("issue", "client", "y") == 2
    captured = capsys.readouterr()
    assert f"file:{secret} can't be read" in captured.err
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"planted" not in kept
    assert "planted" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["list"], 1, "certs has no CA: make one by penstock certs init --dir"),
        (["issue", "client", "x"], 1, "has no CA: make one by penstock certs init --dir"),
        (["init", "--passphrase-from", "planted-hunter2"], 2, "--passphrase-from: no reference"),
        (["init", "--passphrase-from", "env:NOT_SET"], 2, "env:NOT_SET: the variable is not set"),
        (["init", "--passphrase-from", "vault:a/b#c"], 2, "set secrets.vault_address"),
        (["init", "--lifetime", "forever"], 2, "--lifetime: 'forever' is no duration"),
        (["init", "--lifetime", "0d"], 2, "a lifetime of 0 s is not possible"),
        (["init", "--name", ""], 2, "--name: expected 1 to 48 printable"),
        (["init", "--trust-domain", "No Domain"], 2, "is no trust domain"),
        (["init", "--rotate", "--retire"], 2, "one at a time"),
        (["init", "--rotate", "--trust-domain", "x"], 2, "keeps the trust domain"),
        (["init", "--rotate"], 1, "has no CA"),
        (["renew", "x", "--all"], 2, "expected one of the two"),
        (["issue", "robot", "x"], 2, "robot"),
        (["init", "--dir", "/proc/nothing"], 1, "/proc/nothing: No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, expected: str
) -> None:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "planted" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["issue", "server", "a@b"], "clients reach it by which name or address"),
        (["issue", "server", "a", "--dns", "a b"], "'a b' is no DNS name"),
        (["issue", "server", "a", "--ip", "1.2"], "'1.2' is no IP address"),
        (["issue", "client", "../a"], "can't be a certificate's name"),
        (["issue", "client", "a", "--lifetime", "900d"], "expected 1s to 825d"),
        (["renew", "nobody"], "has no certificate nobody"),
        (["init"], "has a CA: penstock certs init --rotate"),
    ],
)
def test_what_is_wrong_beside_a_ca(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert run("init") == 0
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert run(*arguments) in (1, 2)
    assert expected in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before
