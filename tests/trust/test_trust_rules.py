"""Which rule holds for a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.artifacts_config import ArtifactsSettings, TrustRule

KEYS = (Path("/keys/a.pub"),)
RULES = ArtifactsSettings(
    trust=(
        TrustRule(models=("free",), require="none"),
        TrustRule(tenants=("guest-*",), public_keys=KEYS, minimum_version=3),
        TrustRule(tenants=("*",), public_keys=KEYS, minimum_version=2),
        TrustRule(models=("m*",), public_keys=KEYS, minimum_version=1),
    )
)


@pytest.mark.parametrize(
    ("model", "tenant", "minimum"),
    [
        ("free", "", 0),
        ("free", "guest-1", 0),
        ("m", "guest-1", 3),
        ("m", "other", 2),
        # on disk: rules of tenants are not for it, whatever their patterns
        ("m", "", 1),
        ("x", "", None),
        ("x", "other", 2),
    ],
)
def test_the_first_that_fits_holds(model: str, tenant: str, minimum: int | None) -> None:
    rule = RULES.rule_for(model, tenant)
    assert (rule and rule.minimum_version) == minimum
