"""Quality gates: what a version has to be good for before it is given traffic. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from penstock_training.held_out import HeldOut
from penstock_training.register_config import ChampionGate, GateSettings
from penstock_training.report.axes import shown

PASSED: Final = "passed"
NO_GATES: Final = "no gates: only ONNX and torch were compared"
"""That comparison is made of each version: that it holds says nothing of how good the model is."""
ONNX: Final = "difference of ONNX and torch"
DEFAULT_MARGINS: Final = {"accuracy": 0.002}
"""What a classifier may be worse by than the champion."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that is served, and how good it is on the same rows."""

    version: int
    metrics: Mapping[str, float]
    problem: str = ""
    """Why it could not be evaluated; empty: it was."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate."""

    name: str
    expected: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All gates."""

    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    @property
    def asked(self) -> bool:
        """Whether anything had to be good: a gate was configured, or there was a champion to compare with."""
        return any(gate.name != ONNX for gate in self.gates)

    @property
    def summary(self) -> str:
        """One line: the tag `penstock.gates` of a version."""
        failed = [f"{g.name} {g.found}, expected {g.expected}" for g in self.gates if not g.passed]
        if failed:
            return f"failed: {'; '.join(failed)}"
        return PASSED if self.asked else NO_GATES


def judge(
    settings: GateSettings, found: HeldOut, onnx_error: float, champion: Champion | None
) -> Verdict:
    """`champion`: None: there is none yet."""
    return Verdict(
        (
            *_thresholds(settings, found.metrics),
            *_recall(settings, found),
            _onnx(settings, onnx_error),
            *_against(settings, found, champion),
        )
    )


def margins_of(settings: ChampionGate, found: HeldOut) -> Mapping[str, float]:
    """By how much a version may be worse than the champion."""
    if settings.worse_by or found.evaluation is None:
        return settings.worse_by
    return DEFAULT_MARGINS


def _thresholds(settings: GateSettings, metrics: Mapping[str, float]) -> Iterator[GateResult]:
    for name, low in settings.minimum.items():
        value = metrics.get(name, math.nan)
        # NaN is never at least anything
        yield _result(name, f"at least {shown(low)}", value, value >= low, metrics)
    for name, high in settings.maximum.items():
        value = metrics.get(name, math.nan)
        yield _result(name, f"at most {shown(high)}", value, value <= high, metrics)


def _result(
    name: str, expected: str, value: float, passed: bool, metrics: Mapping[str, float]
) -> GateResult:
    if name not in metrics:
        known = ", ".join(sorted(metrics)) or "none"
        return GateResult(name, expected, f"is no metric of this run (there are: {known})", False)
    return GateResult(name, expected, _number(value), passed)


def _recall(settings: GateSettings, found: HeldOut) -> Iterator[GateResult]:
    if not settings.minimum_recall or found.evaluation is None:
        return
    there = [each for each in found.evaluation.classes if each.support]
    worst = min(there, key=lambda each: each.recall)
    yield GateResult(
        "recall of each class",
        f"at least {shown(settings.minimum_recall)}",
        f"{_number(worst.recall)} of {worst.name!r}",
        worst.recall >= settings.minimum_recall,
    )


def _onnx(settings: GateSettings, error: float) -> GateResult:
    limit = settings.onnx_error
    return GateResult(ONNX, f"at most {shown(limit)}", _number(error), error <= limit)


def _against(
    settings: GateSettings, found: HeldOut, champion: Champion | None
) -> Iterator[GateResult]:
    alias = settings.champion.alias
    margins = margins_of(settings.champion, found)
    if champion is None or not margins:
        return
    name = f"{alias} (version {champion.version})"
    if champion.problem:
        yield GateResult(f"comparison with the {name}", "possible", champion.problem, False)
        return
    for metric, margin in margins.items():
        lower = metric in settings.lower_is_better
        ours = found.metrics.get(metric, math.nan)
        theirs = champion.metrics.get(metric, math.nan)
        bound = theirs + margin if lower else theirs - margin
        passed = ours <= bound if lower else ours >= bound
        side = "at most" if lower else "at least"
        expected = f"{side} {shown(bound)}, the {name} has {_number(theirs)}"
        yield _result(metric, expected, ours, passed, found.metrics)


def _number(value: float) -> str:
    return "not a number" if math.isnan(value) else shown(value)
