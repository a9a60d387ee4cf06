"""The report: ratios with their spread, goals, and JSON that can be read back."""

from __future__ import annotations

import json

from rich.console import Console

from penstock_loadtest.cases import Case
from penstock_loadtest.compare import Comparison, Spread
from penstock_loadtest.measurement import Measurement
from penstock_loadtest.report import goal_text, noise_text, print_report, spread_text, to_json

RATIOS = Spread((2.0, 2.5, 1.9))


def comparison(case: Case, latency: Spread | None = None) -> Comparison:
    return Comparison(case, "penstock", "triton", RATIOS, latency, Spread((0.5,)), 0.4)


def test_a_spread_shows_median_lowest_and_highest() -> None:
    assert spread_text(RATIOS) == "2.00 (1.90 - 2.50)"
    assert spread_text(None) == "-"


def test_goals_are_judged_by_the_median() -> None:
    case = Case("identity", "grpc", 64, throughput_goal=2.0, latency_goal=1.0)
    text = goal_text(comparison(case, Spread((1.1, 0.9, 1.2))))
    assert text == "[green]throughput ≥ 2 met[/], [red]latency ≤ 1 missed[/]"


def test_noise_that_spoils_ratios_stands_out() -> None:
    assert noise_text(0.1) == "0.10"
    assert noise_text(0.5) == "[yellow]0.50[/]"


def test_no_goal_no_verdict() -> None:
    assert goal_text(comparison(Case("identity", "grpc", 16))) == ""


def test_the_tables_show_ratios_and_turns() -> None:
    turn = Measurement("bare loop", "identity-grpc-64", 10, 1234.0, 56.7)
    console = Console(width=200)
    with console.capture() as captured:
        print_report(console, [comparison(Case("identity", "grpc", 64))], [turn])
    text = captured.get()
    assert "penstock / triton" in text
    assert "2.00 (1.90 - 2.50)" in text
    assert "1,234" in text


def test_json_holds_the_spread_and_each_round() -> None:
    found = to_json([comparison(Case("identity", "grpc", 64))], [], ["image: why"], {"rounds": 3})
    read = json.loads(json.dumps(found))
    assert read["comparisons"][0]["case"]["name"] == "identity-grpc-64"
    assert read["comparisons"][0]["throughput"] == {
        "median": 2.0,
        "min": 1.9,
        "max": 2.5,
        "rounds": [2.0, 2.5, 1.9],
    }
    assert read["comparisons"][0]["median_latency"] is None
    assert read["skipped"] == ["image: why"]
    assert read["settings"] == {"rounds": 3}
