"""What became of each request of an open-loop stream, and the arithmetic on it."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ANSWER: Final = np.dtype(
    [("due_s", "f8"), ("sent_s", "f8"), ("done_s", "f8"), ("code", "i2"), ("process", "i4")]
)
"""A request: when it was to be sent, was sent, and ended, in seconds since the stream's start; its gRPC status, or
WRONG; the process that ran it, 0 where it has no answer."""

Answers = npt.NDArray[Any]
"""Records of ANSWER, in the order they were due."""

OK: Final = 0
DEADLINE_EXCEEDED: Final = 4
WRONG: Final = 100
"""Answered, but not with what was asked."""


def answered(answers: Answers) -> Answers:
    """Those that were answered rightly."""
    right: Answers = answers[answers["code"] == OK]
    return right


def unanswered(answers: Answers) -> int:
    """How many have no answer, or a wrong one."""
    return int(np.count_nonzero(answers["code"] != OK))


def goodput(answers: Answers, patience_s: float, seconds: float) -> float:
    """Answers within `patience_s` of the time their request was due, per second."""
    right = answered(answers)
    in_time = right["done_s"] - right["due_s"] <= patience_s
    return float(np.count_nonzero(in_time)) / seconds


def latencies_s(answers: Answers, patience_s: float) -> npt.NDArray[np.float64]:
    """From the time each request was due to its answer; `patience_s` for one that has none.

    A refusal is no fast answer: who is refused has waited in vain.
    """
    waited = np.minimum(answers["done_s"] - answers["due_s"], patience_s)
    waited[answers["code"] != OK] = patience_s
    return np.asarray(waited, np.float64)


def quantile(values: npt.NDArray[Any], part: float) -> float:
    """The smallest of `values` that at least `part` of them do not exceed. Raises ValueError where there are none."""
    if not len(values):
        raise ValueError("expected at least one value")
    rank = max(1, math.ceil(part * len(values)))
    return float(np.partition(values, rank - 1)[rank - 1])


def lateness_s(answers: Answers) -> float:
    """99 of 100 requests were sent no later than this after they were due: how well the client kept its schedule."""
    return quantile(answers["sent_s"] - answers["due_s"], 0.99) if len(answers) else 0.0
