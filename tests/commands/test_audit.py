"""`penstock audit`: what it says of whole and of damaged logs, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit_logs import entries, event, log_files, settings, write_log
from penstock.audit.chain import Chain
from penstock.audit.event import AuditEvent, cleaned
from penstock.audit.lines import Record
from penstock.audit.signing import Signer
from penstock.cli import main
from penstock.commands.audit_view import lines_of


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key's file, with the public one beside it."""
    path = tmp_path / "audit.key"
    assert main(["audit", "keygen", str(path)]) == 0
    return path


@pytest.fixture
def folder(tmp_path: Path, key: Path) -> Path:
    """A signed log."""
    signer = Signer.from_pem(key.read_bytes(), "key")
    write_log(tmp_path / "audit", [[f"{n}", f"{n}+"] for n in range(10)], signer)
    return tmp_path / "audit"


def test_keygen_makes_a_pair_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "audit.key"
    assert main(["audit", "keygen", str(key)]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    public = tmp_path / "audit.key.pub"
    assert public.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    before = key.read_bytes()
    out = capsys.readouterr().out
    assert f'sign_key = "file:{key}"' in out and "PRIVATE" not in out
    assert main(["audit", "keygen", str(key)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert key.read_bytes() == before
    assert main(["audit", "keygen", str(tmp_path / "none" / "k")]) == 2


def test_a_whole_log(folder: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["audit", "verify", str(folder), "--public-key", f"{key}.pub"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("whole: ")
    anchor = out.splitlines()[-1].removeprefix("last record ")
    assert main(["audit", "verify", str(folder), "--at-least", anchor]) == 0


def test_a_damaged_one_says_what_and_where(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = log_files(folder)[1]
    lines = second.read_bytes().splitlines(keepends=True)
    dropped = json.loads(lines.pop(1))["seq"]
    second.write_bytes(b"".join(lines))
    capsys.readouterr()
    assert main(["audit", "verify", str(folder)]) == 1
    output = capsys.readouterr()
    assert f"audit-000002.jsonl:2: record {dropped}: record {dropped} is missing" in output.err
    assert "DAMAGED: " in output.out
    assert main(["audit", "verify", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["whole"] is False
    assert found["problems"][0] == {
        "file": "audit-000002.jsonl",
        "line": 2,
        "seq": dropped,
        "text": f"record {dropped} is missing",
    }


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ("flip", "changed: its hash is not that of its content"),
        ("swap", "is missing"),
        ("repeat", "repeated or moved"),
        ("truncate", "the line is cut off"),
        ("remove", "audit-000002.jsonl: the file is missing"),
        ("end", "missing at the end"),
    ],
)
def test_each_kind_of_damage_has_its_words(
    folder: Path, capsys: pytest.CaptureFixture[str], edit: str, text: str
) -> None:
    files = log_files(folder)
    lines = files[1].read_bytes().splitlines(keepends=True)
    match edit:
        case "flip":
            lines[2] = lines[2].replace(b'"outcome":"refused"', b'"outcome":"allowed"')
            assert b"allowed" in lines[2]
        case "swap":
            lines[1], lines[2] = lines[2], lines[1]
        case "repeat":
            lines.insert(2, lines[1])
        case "truncate":
            lines[-1] = lines[-1][:-9]
    files[1].write_bytes(b"".join(lines))
    if edit == "remove":
        files[1].unlink()
    if edit == "end":
        last = files[-1].read_bytes().splitlines(keepends=True)
        files[-1].write_bytes(b"".join(last[:-1]))
    assert main(["audit", "verify", str(folder)]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{folder}/none"], "can't be read: No such file"),
        (["{folder}/.."], "there is no audit log in this folder"),
        (["{folder}", "--public-key", "{folder}/head.json"], "expected Ed25519 public keys"),
        (["{folder}", "--public-key", "/none"], "/none: can't be read"),
        (["{folder}", "--at-least", "5"], "expected SEQ:HASH"),
        ([], "the settings have no audit.folder"),
    ],
)
def test_what_cant_be_checked(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(folder)
    given = [argument.format(folder=folder) for argument in arguments]
    assert main(["audit", "verify", *given]) == 2
    assert text in capsys.readouterr().err


def test_the_settings_say_where_the_log_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder.parent / "penstock.toml"
    config.write_text('[audit]\nfolder = "audit"\n')
    assert main(["audit", "verify", "--config", str(config)]) == 0
    assert main(["audit", "show", "--config", str(config), "--limit", "1"]) == 0
    assert "checkpoint" in capsys.readouterr().out


def test_show_filters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    chain = Chain(settings(tmp_path / "audit"), None)
    chain.append(entries(["no credential"]))
    time_ns = 1_800_000_000_000_000_000
    for action, tenant in (("model.load", "a"), ("model.unload", "b"), ("modelled", "b")):
        details = {"version": "3"}
        fields = event("", action=action, tenant=tenant, outcome="done", details=details)
        chain.append([("event", time_ns, fields)])

    def shown(*arguments: str) -> list[str]:
        capsys.readouterr()
        assert main(["audit", "show", str(tmp_path / "audit"), "--json", *arguments]) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return [line.get("action", line["kind"]) for line in lines]

    every = ["open", "authenticate", "model.load", "model.unload", "modelled"]
    assert shown() == every
    assert shown("--limit", "2") == every[3:]
    assert shown("--since", "2") == every[2:]
    assert shown("--since", "2", "--limit", "1") == every[2:3]
    assert shown("--since", "2027-01-01T00:00:00Z") == every[2:]
    assert shown("--since", "2027-01-01T00:00:00+00:00", "--tenant", "b") == every[3:]
    assert shown("--action", "model") == ["model.load", "model.unload"]
    assert shown("--action", "open") == ["open"]
    assert shown("--outcome", "refused") == ["authenticate"]
    assert main(["audit", "show", str(tmp_path / "audit")]) == 0
    assert "no credential" in capsys.readouterr().out
    assert main(["audit", "show", str(tmp_path / "audit"), "--since", "noon"]) == 1
    assert "'noon' is not a time" in capsys.readouterr().err
    assert main(["audit", "show", str(tmp_path / "audit"), "--outcome", "foo"]) == 1
    expected = "outcome is 'foo', expected one of allowed, refused, failed, done"
    assert expected in capsys.readouterr().err


def _refusal(seq: int) -> Record:
    return Record(
        seq=seq,
        prev="",
        kind="event",
        time="2026-11-28T04:12:39.023884825Z",
        hash="",
        action="authenticate",
        outcome="refused",
        principal="cert:spiffe://example.org/team-a/loader",
        tenant="team-a",
        reason="the credential is not known, or does not hold any more",
        request_id="3f2b8f3a-5d1c-4f8e-9a5e-0d9f3f6f2a11",
        client="127.0.0.1:54321",
        details={"protocol": "HTTP", "method": "GET", "path": "/v2/models/add_sub"},
    )


def test_a_record_takes_few_lines_of_a_narrow_terminal() -> None:
    found = list(lines_of(_refusal(123), 80))
    assert found[0] == (
        " 123  2026-11-28T04:12:39.023Z  authenticate refused"
        "  cert:spiffe://example.org/team-a/loader (team-a)"
    )
    assert 2 <= len(found) <= 4 and all(len(line) <= 80 for line in found[1:])
    assert "id=3f2b8f3a-5d1c-4f8e-9a5e-0d9f3f6f2a11" in "\n".join(found)
    # one that is not read on a terminal is a line, to search in
    (line,) = lines_of(_refusal(123), None)
    assert line.endswith("path=/v2/models/add_sub")


def test_nothing_is_cut_where_there_is_no_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["audit", "show", str(folder), "--outcome", "refused"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all("authenticate refused" in line for line in lines)


STEERING = "a\x1b[2Jb\x9b31mc\u202ed\u2028e\x85f\x7fg"


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_nothing_in_a_log_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, ...]
) -> None:
    """A stranger chooses the model's name and the request's id, and may have written the file."""
    chain = Chain(settings(tmp_path / "audit"), None)
    fields = event(STEERING, model=STEERING, request_id=STEERING, details={STEERING: STEERING})
    chain.append([("event", 1, fields), ("resumed", 1, {"lost": 1, "problem": STEERING})])
    for command in (("show", *how), ("verify", *how)):
        assert main(["audit", command[0], str(tmp_path / "audit"), *command[1:]]) == 0
    told = capsys.readouterr().out
    assert [c for c in told if not c.isprintable() and c != "\n"] == []


def test_nothing_is_recorded_that_steers_a_terminal() -> None:
    texts = dict.fromkeys(("principal", "tenant", "model", "reason", "request_id"), STEERING)
    found = cleaned(AuditEvent(action="x", outcome="refused", details={STEERING: "\x9b"}, **texts))
    escaped = r"a\x1b[2Jb\x9b31mc\u202ed\u2028e\x85f\x7fg"
    assert (found.model, found.request_id, found.reason) == (escaped,) * 3
    assert found.details == {escaped: r"\x9b"}
