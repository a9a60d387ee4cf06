"""Figures made from turns."""

from __future__ import annotations

import msgspec
import pytest

from penstock_loadtest.resilience.figures import (
    by_server,
    fairness_curve,
    goodput_curve,
    growth_at_overload,
    memory_growth_mib,
    unanswered_parts,
)
from penstock_loadtest.resilience.report import Report


def test_goodput_is_over_the_own_peak_of_the_same_round(report: Report) -> None:
    curves = {name: goodput_curve(turns) for name, turns in by_server(report.goodput).items()}
    assert list(curves) == ["penstock", "triton"]
    assert list(curves["penstock"]) == [0.5, 1.0, 2.0]
    assert curves["penstock"][2.0].rounds == (1.0, 1.0)
    assert curves["triton"][2.0].rounds == pytest.approx((0.04, 0.04))
    assert curves["triton"][0.5].rounds == (0.5, 0.5)


def test_a_server_that_gives_nothing_has_a_curve(report: Report) -> None:
    turns = [msgspec.structs.replace(turn, good=0.0) for turn in report.goodput]
    assert goodput_curve(turns)[2.0].high == 0.0


def test_fairness_is_over_the_p99_alone(report: Report) -> None:
    own = by_server(report.fairness)
    curve = fairness_curve(own["penstock"])
    assert {times: spread.median for times, spread in curve.items()} == pytest.approx(
        {1.0: 1.1, 100.0: 1.5}
    )
    assert fairness_curve(own["triton"])[100.0].median == 50.0
    assert unanswered_parts(own["triton"])[100.0].median == 0.5


def test_a_round_without_the_tenant_alone_has_no_ratio(report: Report) -> None:
    assert fairness_curve([turn for turn in report.fairness if turn.times]) == {}


def test_memory_is_what_it_grew(report: Report) -> None:
    assert memory_growth_mib(report.goodput[0]) == [(0.0, 0.0), (5.0, 2.0), (10.0, 3.0)]
    growth = growth_at_overload(by_server(report.goodput)["penstock"])
    assert growth is not None
    assert [one.rounds for one in growth] == [(3.0, 3.0), (1.0, 1.0)]
    assert growth_at_overload([turn for turn in report.goodput if turn.load < 2]) is None
