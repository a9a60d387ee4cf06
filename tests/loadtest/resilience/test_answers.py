"""The arithmetic on what became of requests."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_loadtest.resilience.answers import (
    ANSWER,
    DEADLINE_EXCEEDED,
    OK,
    WRONG,
    Answers,
    answered,
    goodput,
    latencies_s,
    lateness_s,
    quantile,
    unanswered,
)

UNAVAILABLE = 14


def answers(*rows: tuple[float, float, float, int]) -> Answers:
    """Records of due, sent, done, code."""
    return np.array([(*row, 1) for row in rows], ANSWER)


FOUR = answers(
    (0.0, 0.0, 0.1, OK),
    (1.0, 1.0, 1.3, OK),
    (2.0, 2.0, 2.001, UNAVAILABLE),
    (3.0, 3.0, 3.2, DEADLINE_EXCEEDED),
)


def test_goodput_counts_answers_in_time() -> None:
    assert goodput(FOUR, patience_s=0.2, seconds=4.0) == 0.25
    assert goodput(FOUR, patience_s=0.4, seconds=4.0) == 0.5


def test_time_runs_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    late = answers((0.0, 0.15, 0.3, OK))
    assert goodput(late, patience_s=0.2, seconds=1.0) == 0.0
    assert latencies_s(late, 1.0).tolist() == [0.3]
    assert lateness_s(late) == 0.15


def test_a_refusal_is_no_fast_answer() -> None:
    assert latencies_s(FOUR, patience_s=0.5) == pytest.approx([0.1, 0.3, 0.5, 0.5])


def test_a_wrong_answer_is_none() -> None:
    wrong = answers((0.0, 0.0, 0.1, WRONG))
    assert unanswered(wrong) == 1
    assert goodput(wrong, 1.0, 1.0) == 0.0
    assert len(answered(wrong)) == 0


def test_unanswered() -> None:
    assert unanswered(FOUR) == 2


@pytest.mark.parametrize(
    ("part", "value"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)]
)
def test_a_quantile_is_one_of_the_values(part: float, value: int) -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 101))
    assert quantile(shuffled, part) == value


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="expected at least one value"):
        quantile(np.array([]), 0.5)


def test_a_client_that_sent_nothing_was_not_late() -> None:
    assert lateness_s(answers()) == 0.0
