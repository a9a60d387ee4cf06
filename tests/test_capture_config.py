"""`[capture]`: which rule holds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.capture_config import CaptureSettings
from penstock.config import Settings
from penstock.config_effects import check_effects
from penstock.config_sources import load_settings
from penstock.errors import ConfigError

TOML = """
[capture]
folder = "lake"
hash_key = "env:CAPTURE_KEY"
tenant_names = "hash"

[[capture.rules]]
models = ["digits"]
tenants = ["team-a"]
sample = 1
tensors = ["*"]
drop = ["SECRET"]
hash = ["USER*"]

[[capture.rules]]
models = ["digits", "emb*"]
sample = 0.01
tensors = ["OUT"]

[[capture.rules]]
models = ["*"]
sample = 0
"""


@pytest.fixture
def settings(tmp_path: Path) -> CaptureSettings:
    file = tmp_path / "penstock.toml"
    file.write_text(TOML)
    loaded = load_settings({}, file)
    check_effects(loaded)
    return loaded.capture


def test_paths_are_relative_to_the_file(settings: CaptureSettings, tmp_path: Path) -> None:
    assert settings.folder == tmp_path / "lake"


def test_the_first_rule_that_fits_holds(settings: CaptureSettings) -> None:
    first, second, _ = settings.rules
    assert settings.rule_for("digits", "team-a") is first
    assert settings.rule_for("digits", "team-b") is second
    assert settings.rule_for("embedder", "team-a") is second
    # one that takes none of them
    assert settings.rule_for("other", "team-a") is None


def test_what_is_kept_of_tensors(settings: CaptureSettings) -> None:
    rule = settings.rules[0]
    assert [rule.keeps(name) for name in ("X", "SECRET", "USER_ID")] == [True, False, True]
    assert [rule.hashes(name) for name in ("X", "USER_ID")] == [False, True]
    assert not settings.rules[1].keeps("X")


def test_nothing_is_kept_unless_it_is_named() -> None:
    assert CaptureSettings().rule_for("m", "t") is None
    rule = CaptureSettings.model_validate({"rules": [{"models": ["*"], "sample": 1}]}).rules[0]
    assert not rule.keeps("X")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('tenant_names = "hash"', "tenant_names hash needs hash_key"),
        ('rules = [{ models = ["*"], sample = 1, hash = ["X"] }]', "rules.0.hash needs hash_key"),
        ('rules = [{ models = ["*"], sample = 2 }]', "rules.0.sample"),
        ('rules = [{ models = ["*"] }]', "rules.0.sample"),
        ("rules = [{ sample = 1 }]", "rules.0.models"),
        ("queue_bytes = 0", "queue_bytes"),
        ("rotate_secs = 0", "rotate_secs"),
        ('hash_key = "0123456789abcdef"', "no reference to a secret"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, table: str, expected: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(f"[capture]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({}, file)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"folder": "/lake"}, "capture.folder has no effect: expected [[capture.rules]]"),
        (
            {"folder": "/lake", "rules": [{"models": ["*"], "sample": 0}]},
            "capture.folder has no effect",
        ),
        ({"rules": [{"models": ["*"], "sample": 1}]}, "capture.rules has no effect"),
    ],
)
def test_settings_without_effect_are_refused(given: dict[str, Any], expected: str) -> None:
    settings = Settings(capture=CaptureSettings.model_validate(given))
    with pytest.raises(ConfigError) as caught:
        check_effects(settings)
    assert expected in str(caught.value)
