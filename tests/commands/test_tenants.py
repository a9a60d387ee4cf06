"""`penstock tenants`: what it does to the file, shows, and refuses."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from doc_tables import DOCS
from markdown import blocks
from penstock.access.api_keys import parse_key
from penstock.access.tenant_changes import TenantChange
from penstock.access.tenant_records import TenantSnapshot, Usage
from penstock.access.tenants import TenantStore
from penstock.audit.reading import Filter, records
from penstock.cli import main
from penstock.commands import tenant_desk
from penstock.commands.time_values import parse_duration, parse_since
from penstock.errors import InvalidRequest


class Line:
    """The command line, in a folder of its own, with a file of tenants beside it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "state" / "penstock" / "tenants.db"
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        """Standard output of a command that works."""
        code = main(["tenants", *arguments])
        out, self.err = self._capsys.readouterr()
        assert code == 0, self.err
        return out

    def fails(self, *arguments: str) -> tuple[int, str]:
        """Exit code and standard error of one that doesn't."""
        code = main(["tenants", *arguments])
        out, err = self._capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        return code, err

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def kept(self) -> TenantSnapshot:
        store = TenantStore(self.file, create=False)
        try:
            return store.read()
        finally:
            store.close()


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Line:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("PENSTOCK_ACCESS_TENANTS_FILE", raising=False)
    return Line(tmp_path, capsys)


def test_a_tenant_from_its_creation_to_its_end(line: Line) -> None:
    assert line("create", "team-a", "--models", "digits", "--models", "emb*", "--weight", "2") == ""
    assert "`penstock tenants key create team-a`" in line.err
    (listed,) = line.json("list")
    assert listed["created_at"].endswith("Z")
    del listed["created_at"]
    assert listed == {
        "name": "team-a",
        "disabled": False,
        "weight": 2.0,
        "models": ["digits", "emb*"],
        "captured": [],
    }
    assert line.json("disable", "team-a")["disabled"]
    assert "disabled" in line("list")
    assert not line.json("enable", "team-a")["disabled"]
    assert line.json("weight", "team-a", "0.25")["weight"] == 0.25
    assert line.json("weight", "team-a", "default")["weight"] is None
    assert line.json("models", "team-a", "*")["models"] == ["*"]
    assert line.json("capture", "team-a", "dig*", "emb*")["captured"] == ["dig*", "emb*"]
    assert line("capture", "team-a", "--none") == ""
    assert "may be kept: none" in line.err
    assert line.json("show", "team-a")["captured"] == []
    line("delete", "team-a", "--yes")
    assert line.json("list") == []


def test_a_new_key_is_all_of_standard_output(line: Line) -> None:
    line("create", "a")
    out = line("key", "create", "a", "--role", "viewer", "--label", "for CI", "--expires", "30d")
    parsed = parse_key(out.removesuffix("\n"))
    assert parsed is not None
    assert f"psk_{parsed.id} is a key of tenant 'a' with role viewer" in line.err
    assert parsed.secret not in line.err
    (key,) = line.json("key", "list", "a")
    assert key["id"] == f"psk_{parsed.id}"
    assert (key["state"], key["label"], key["last_used"]) == ("active", "for CI", None)
    shown = line("key", "list", "a") + line("show", "a") + json.dumps(line.json("show", "a"))
    assert f"psk_{parsed.id}" in shown
    assert parsed.secret not in shown


def test_a_key_is_rotated_and_revoked(line: Line) -> None:
    line("create", "a")
    old = line.json("key", "create", "a", "--models", "d*")
    new = line.json("key", "rotate", "a", old["id"], "--overlap", "1h")
    assert f"{old['id']} works until 20" in line.err
    assert parse_key(new["key"])
    assert new["models"] == ["d*"]
    keys = {key["id"]: key for key in line.json("key", "list", "a")}
    assert keys[old["id"]]["state"] == keys[new["id"]]["state"] == "active"
    assert keys[old["id"]]["expires_at"] is not None
    assert keys[new["id"]]["expires_at"] is None
    assert line.json("key", "revoke", "a", new["id"].removeprefix("psk_"))["state"] == "revoked"
    assert line("key", "rotate", "a", old["id"], "--overlap", "0s").startswith("psk_")
    assert {key["state"] for key in line.json("show", "a")["keys"]} == {
        "active",
        "expired",
        "revoked",
    }


def test_a_key_is_revoked_once(line: Line) -> None:
    line("create", "a")
    line("key", "create", "a")
    (key,) = line.json("key", "list", "a")
    line("key", "revoke", "a", key["id"])
    assert line.err == f"{key['id']} is revoked\n"
    (revoked,) = line.json("key", "list", "a")
    line("key", "revoke", "a", key["id"])
    assert line.err == f"{key['id']} is revoked already, since {revoked['revoked_at']}\n"


@pytest.mark.parametrize("columns", ["60", "80", "160"])
@pytest.mark.parametrize("command", [("key", "list"), ("show",)])
def test_nothing_of_a_key_is_cut(
    line: Line, monkeypatch: pytest.MonkeyPatch, columns: str, command: tuple[str, ...]
) -> None:
    line("create", "a")
    line("key", "create", "a", "--role", "tenant-admin", "--role", "monitor", "--expires", "90d")
    (key,) = line.json("key", "list", "a")
    monkeypatch.setenv("COLUMNS", columns)
    shown = line(*command, "a")
    for text in (key["id"], "active", "tenant-admin", "monitor", key["expires_at"], "never"):
        assert text in shown
    assert ("│" in shown) == (columns == "160")


def test_an_audit_log_that_cant_be_written_is_one_line(line: Line, tmp_path: Path) -> None:
    line("create", "a")
    (tmp_path / "audit").write_text("no folder")
    (tmp_path / "penstock.toml").write_text('[audit]\nfolder = "audit"\n')
    code, text = line.fails("weight", "a", "2")
    assert code == 1 and text.startswith("penstock: the audit log can't be written: ")
    assert str(tmp_path / "audit") in text
    assert line.json("show", "a")["weight"] is None


def test_quotas_are_set_listed_and_cleared(line: Line) -> None:
    line("create", "a")
    line("quota", "list", "a")
    assert "has no limits" in line.err
    line("quota", "set", "a", "--requests-per-s", "1.5", "--bytes-per-day", "1GiB")
    line("quota", "set", "a", "--in-flight", "8", "--model", "emb*")
    expected = {
        "*": {"requests_per_s": 1.5, "bytes_per_day": 1 << 30},
        "emb*": {"in_flight": 8},
    }
    assert line.json("quota", "list", "a") == expected
    shown = line("quota", "list", "a")
    assert "1,073,741,824" in shown
    assert "models emb*" in shown
    assert line.json("quota", "set", "a", "--bytes-per-day", "none") == {
        "*": {"requests_per_s": 1.5}
    }
    line("quota", "clear", "a", "--model", "emb*")
    assert set(line.json("quota", "list", "a")) == {"*"}
    line("quota", "clear", "a")
    assert line.kept().limits == {}


def test_usage_is_shown_with_its_sum(line: Line) -> None:
    line("create", "a")
    assert line.json("usage", "a") == []
    store = TenantStore(line.file)
    today = parse_since("0s", store._clock())
    for tenant, days_ago in (("a", 0), ("a", 100), ("from-a-token", 1)):
        usage = Usage(tenant=tenant, model="m", day=today - days_ago, requests=1000, rows=2)
        store.add_usage([usage])
    store.close()
    assert [each["tenant"] for each in line.json("usage")] == ["a", "from-a-token"]
    assert len(line.json("usage", "a", "--since", "200d")) == 2
    assert line.json("usage", "from-a-token")[0]["requests"] == 1000
    assert "2,000" in line("usage", "a", "--since", "2020-01-01")


def test_the_file_is_the_one_that_a_server_takes(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line("create", "default")
    (tmp_path / "penstock.toml").write_text('[access]\ntenants_file = "beside/t.db"\n')
    line("create", "beside")
    (tmp_path / "other.toml").write_text('[access]\ntenants_file = "other/t.db"\n')
    line("create", "other", "--config", "other.toml")
    line("create", "flag", "--access-tenants-file", str(tmp_path / "flag.db"))
    monkeypatch.setenv("PENSTOCK_ACCESS_TENANTS_FILE", str(tmp_path / "variable.db"))
    line("create", "variable")
    for file, name in (
        (line.file, "default"),
        (tmp_path / "beside" / "t.db", "beside"),
        (tmp_path / "other" / "t.db", "other"),
        (tmp_path / "flag.db", "flag"),
        (tmp_path / "variable.db", "variable"),
    ):
        (tenant,) = line.json("list", "--access-tenants-file", str(file))
        assert tenant["name"] == name


def test_roles_of_the_settings_are_known(line: Line, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[access.roles.tester]\nverbs = ["infer"]\n')
    line("create", "a")
    assert line.json("key", "create", "a", "--role", "tester")["roles"] == ["tester"]


def test_the_commands_that_the_documentation_shows(line: Line) -> None:
    (example,) = [block for block in blocks(DOCS / "access.md") if "tenants create" in block.text]
    commands = [shlex.split(each, comments=True) for each in example.text.splitlines()]
    assert len(commands) > 5
    for penstock, tenants, *arguments in commands:
        assert (penstock, tenants) == ("penstock", "tenants")
        line(*arguments)
    (tenant,) = line.kept().tenants.values()
    assert (tenant.disabled, tenant.models) == (True, ("team-a-*", "embedder"))


KEY = "psk_1a2b3c4d5e"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["create"], 2, "TENANT"),
        (["create", "a b"], 1, "a tenant's name has 1 to 64 letters"),
        (["create", "a"], 1, "there is a tenant 'a' already"),
        (["create", "b", "--weight", "x"], 2, "--weight"),
        (["create", "b", "--weight", "-1"], 1, "a weight is a number above 0"),
        (["weight", "a", "much"], 1, "a weight is a number, or `default`; got 'much'"),
        (["show", "b"], 1, "there is no tenant 'b'"),
        (["usage", "b"], 1, "there is no tenant 'b'"),
        (["usage", "--since", "May"], 1, "'May' is neither a day, such as 2026-07-01, nor"),
        (["delete", "a"], 1, "deleting 'a' can't be undone: expected --yes"),
        (["delete", "b", "--yes"], 1, "there is no tenant 'b'"),
        (["key", "list", "b"], 1, "there is no tenant 'b'"),
        (["key", "create", "b"], 1, "there is no tenant 'b'"),
        (["key", "create", "a", "--role", "king"], 1, "there is no role 'king', expected one of"),
        (["key", "create", "a", "--expires", "soon"], 1, "'soon' is no duration: expected"),
        (["key", "create", "a", "--expires", "0s"], 1, "a key lives for more than 0 s"),
        (["key", "revoke", "a", KEY], 1, "tenant 'a' has no key 'psk_1a2b3c4d5e'"),
        (["models", "a", "a/b["], 1, "no model has a / in its name; got 'a/b['"),
        (["capture", "a"], 1, "expected patterns of models, `*` for all, or --none"),
        (["capture", "a", "x", "--none"], 1, "expected patterns of models"),
        (["key", "create", "a", "--models", "b["], 1, "expected a ] for each [ of a pattern"),
        (["key", "revoke", "a", f"{KEY}_secret"], 1, "expected a key's id"),
        (["key", "rotate", "a", KEY, "--overlap", "-1h"], 1, "'-1h' is no duration"),
        (["quota", "set", "a"], 1, "no limit was given, such as --requests-per-s 100"),
        (
            ["quota", "set", "a", "--in-flight", "x"],
            1,
            "--in-flight: expected a whole number from 1 to",
        ),
        (["quota", "set", "a", "--in-flight", "1.5"], 1, "--in-flight: expected a whole number"),
        (
            ["quota", "set", "a", "--rows-per-s", "nan"],
            1,
            "--rows-per-s: expected a number above 0",
        ),
        (["quota", "set", "a", "--requests-per-s", "-1"], 1, "or `none`; got '-1'"),
        (["quota", "set", "a", "--bytes-per-s", "9 miles"], 1, "--bytes-per-s: expected a size"),
        (["quota", "set", "a", "--burst-rows", "5"], 1, "has no effect without rows_per_s"),
        (["quota", "clear", "a", "--model", "x"], 1, "no limits for the models 'x'"),
        (["list", "--access-tenants-file", "nope.db"], 2, "nope.db: there is no such file yet"),
        (["list", "--config", "nope.toml"], 2, "nope.toml: can't be read"),
        (["list", "--access-tenants-file", "."], 2, "this is no file"),
    ],
)
def test_what_is_wrong_is_one_line(
    line: Line, arguments: list[str], code: int, expected: str
) -> None:
    line("create", "a")
    before = line.kept()
    got, text = line.fails(*arguments)
    assert (got, expected in text) == (code, True), text
    assert line.kept() == before


def test_what_a_failed_change_was_is_told(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, str]] = []

    def record(change: TenantChange) -> None:
        assert change.principal.startswith("cli:")
        told.append((change.action, change.outcome, change.reason))

    monkeypatch.setattr(tenant_desk, "recorded_in", lambda log: record)
    line("create", "a")
    line.fails("create", "a")
    line("key", "create", "a")
    assert told == [
        ("tenants.create", "allowed", ""),
        ("tenants.create", "done", ""),
        ("tenants.create", "allowed", ""),
        ("tenants.create", "failed", "there is a tenant 'a' already"),
        ("tenants.key.create", "allowed", ""),
        ("tenants.key.create", "done", ""),
    ]


def test_no_new_audit_log_is_begun_where_there_may_have_been_one(
    line: Line, tmp_path: Path
) -> None:
    config, log = tmp_path / "penstock.toml", tmp_path / "log"
    config.write_text('[audit]\nfolder = "log"\n')
    code, text = line.fails("create", "a")
    assert code == 1
    assert f"the audit log can't be written: {log}: there is no such folder." in text
    assert "start the server once, or make the folder" in text
    assert not log.exists()
    assert line.json("list") == []
    # who makes the folder means it, and is told all the same
    log.mkdir()
    line("create", "a")
    assert f"there is no audit log in {log}: a new one is begun\n" in line.err
    line("create", "b")
    assert "audit log" not in line.err
    shutil.rmtree(log)
    assert line.fails("create", "c")[0] == 1
    config.write_text('[audit]\nfolder = "log"\nwhen_it_cant_be_written = "go_on"\n')
    line("create", "c")
    assert f"there is no audit log in {log}: a new one is begun\n" in line.err
    assert [each.tenant for each in records(log, Filter(action="tenants"))] == ["c", "c"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1.5m", 90), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600), (" 1y ", 31_557_600)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "-1h", "1H", "1e3s", "infs", "٣s", "1d2h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRequest, match="such as 24h or 30d"):
        parse_duration(text)


def test_since() -> None:
    noon = 20_000 * 86_400 + 43_200
    assert parse_since("0s", noon) == 20_000
    assert parse_since("2d", noon) == 19_998
    assert parse_since("1970-01-02", noon) == 1
