"""What access control costs: that it is measured, not how much it is."""

from __future__ import annotations

from typer.testing import CliRunner

from penstock_loadtest.access import AccessCosts, Cost, measure
from penstock_loadtest.cli import app


def test_each_way_is_gone() -> None:
    """None is refused on it."""
    costs = measure(requests=50, rounds=2)
    assert [cost.name for cost in costs.paths[:3]] == ["access off", "API key", "JWT (RS256)"]
    assert [cost.name for cost in costs.fresh] == [
        "API key",
        "JWT (RS256)",
        "JWT (ES256)",
        "JWT (EdDSA)",
    ]
    for cost in (*costs.paths, *costs.steps, *costs.fresh):
        assert 0 < cost.least <= cost.microseconds <= cost.most, cost


def test_what_it_comes_to() -> None:
    """The difference between the first two ways."""
    paths = [Cost("off", 0.5, 0.4, 0.6), Cost("on", 3.5, 3.0, 4.0)]
    assert AccessCosts(paths, [], []).added_us == 3.0


def test_the_command_prints_it() -> None:
    """All tables, and the sum."""
    result = CliRunner().invoke(app, ["access", "--requests", "20", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    assert "client certificate" in result.output
    assert "API key, permission and quota together: " in result.output
