"""Which requests are kept: by rule, tenant, permission, and their clients' own word."""

from __future__ import annotations

from pathlib import Path

import pytest

from captured import Line, config, rule, settings
from penstock.capture.capture import MAX_TENANTS, Capture
from penstock.capture.check import check_capture
from penstock.capture.columns import Table
from penstock.capture.counts import CaptureCounts, Skipped
from penstock.capture_config import CaptureRule, CaptureSettings
from penstock.errors import ConfigError, Unavailable
from penstock.secrets_config import SecretRef


def capture(*rules: CaptureRule, line: Line | None = None, **others: object) -> Capture:
    given = settings(Path("/lake"), *rules)
    return Capture(given, line or Line(), CaptureCounts(), **others)  # type: ignore[arg-type]


def test_a_plan_for_those_tenants_that_a_rule_is_for() -> None:
    made = capture(rule(tenants=("team-*",), sample=0.5), rule(models=("x",))).of(1, config())
    plan = made.plan("team-a")
    assert plan is not None and plan is made.plan("team-b")
    assert (plan.inputs, plan.outputs, plan.table.sample) == ({"X": 0}, {"Y": 0}, 0.5)
    assert made.plan("other") is None


def test_a_table_is_made_once_however_often_the_model_is_loaded() -> None:
    line = Line()
    made = capture(line=line)
    first, again = (made.of(1, config()).plan("t") for _ in range(2))
    other = made.of(2, config()).plan("t")
    assert first is not None and again is not None and other is not None
    assert first.table.number == again.table.number != other.table.number
    assert list(line.tables) == [1, 2]


def test_a_header_may_name_any_number_of_tenants() -> None:
    made = capture().of(1, config())
    for number in range(3 * MAX_TENANTS):
        made.plan(str(number))
    assert len(made._by_tenant) <= MAX_TENANTS


def test_a_tenant_has_to_allow_it() -> None:
    asked: list[tuple[str, str]] = []

    def may_keep(tenant: str, model: str) -> bool:
        asked.append((tenant, model))
        return tenant == "open"

    made = capture(may_keep=may_keep)
    plan = made.of(1, config()).plan("open")
    assert plan is not None
    assert made.takes(plan, "open", None)
    assert not made.takes(plan, "closed", None)
    assert asked == [("open", "m"), ("closed", "m")]
    assert made.counts.skipped[Skipped.NOT_ALLOWED] == 1


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (None, True),
        (True, True),
        (False, False),
        ("false", False),
        ("no", False),
        (0, False),
        (1, False),
    ],
)
def test_a_client_may_say_no(wanted: object, taken: bool) -> None:
    made = capture()
    plan = made.of(1, config()).plan("t")
    assert plan is not None
    assert made.takes(plan, "t", wanted) is taken
    assert made.counts.skipped[Skipped.OPTED_OUT] == (not taken)


def test_that_a_model_is_captured_is_told_before_it_is() -> None:
    told: list[str] = []

    def tell(table: Table, rule: CaptureRule) -> None:
        told.append(table.model)
        if len(told) < 3:
            raise Unavailable("the audit log can't be written")

    made = capture(on_table=tell)
    plan = made.of(1, config()).plan("t")
    assert plan is not None
    assert [made.takes(plan, "t", None) for _ in range(4)] == [False, False, True, True]
    assert told == ["m"] * 3
    assert made.counts.skipped[Skipped.NOT_RECORDED] == 2


def test_what_cant_be_kept_ends_the_start(tmp_path: Path) -> None:
    def read(reference: SecretRef) -> bytes:
        return b"short"

    check_capture(CaptureSettings(), read)
    check_capture(settings(tmp_path / "a" / "lake"), read)
    assert (tmp_path / "a" / "lake").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"capture.folder: .*file/lake: can't be made"):
        check_capture(settings(tmp_path / "file" / "lake"), read)
    key = SecretRef.parse("env:KEY")
    with pytest.raises(ConfigError, match="the key has 5 bytes"):
        check_capture(settings(tmp_path / "lake", hash_key=key), read)


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else 1)
    with pytest.raises(
        ConfigError, match=r"pyarrow, which is not installed: pip install 'penstock\[capture\]'"
    ):
        check_capture(settings(tmp_path), lambda _: b"")
