"""What is a right answer, and what an error means."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import grpc
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from penstock_loadtest.chaos.books import Kind
from penstock_loadtest.chaos.explain import BadResponse, HttpError, SecondAnswer, explain
from penstock_loadtest.chaos.models import TARGETS
from penstock_loadtest.chaos.questions import Array, Reply, judge, make_question

X = np.array([[1, 2], [3, 4]], np.float32)
RIGHT = Reply("r", 2 * X + 1)


def generation(*numbers: int) -> Array:
    return np.array(numbers, np.int32).reshape(-1, 1)


def test_right_answers() -> None:
    assert judge(X, "r", RIGHT, 0, 0).kind is Kind.OK
    assert judge(X, "r", replace(RIGHT, generation=generation(4, 4)), 3, 5).kind is Kind.OK


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (replace(RIGHT, id="s"), "the answer of request 's' came"),
        (replace(RIGHT, y=None), "got none"),
        (replace(RIGHT, y=(2 * X + 1)[:1]), r"got float32 \(1, 2\)"),
        (replace(RIGHT, y=(2 * X + 1).astype(np.float64)), "got float64"),
        (replace(RIGHT, y=2 * X), r"4 of 4 values .* \[0, 0\]: X is 1.0, Y is 2.0"),
        (replace(RIGHT, y=(2 * X + 1)[::-1]), "4 of 4 values"),
        (replace(RIGHT, generation=generation(2, 3)), r"GENERATION is \[2, 3\], expected 3 to 5"),
        (replace(RIGHT, generation=generation(6, 6)), r"GENERATION is \[6\]"),
        (replace(RIGHT, generation=generation(3)), r"got \(1, 1\)"),
    ],
)
def test_wrong_answers(reply: Reply, text: str) -> None:
    outcome = judge(X, "r", reply, 3, 5)
    assert outcome.kind is Kind.WRONG
    assert re.search(text, outcome.detail)


def test_questions_are_exact_and_fit_the_model() -> None:
    rng = random.Random(1)
    for target in TARGETS:
        for _ in range(50):
            x = make_question(rng, target)
            assert 1 <= len(x) <= target.max_rows
            assert np.array_equal((2 * x + 1).astype(np.int64), 2 * x.astype(np.int64) + 1)
            # one that is negative would be poison
            assert x.min() >= 0


def test_a_seed_gives_the_same_questions() -> None:
    first, second = (make_question(random.Random(7), TARGETS[0]) for _ in range(2))
    assert np.array_equal(first, second)


class CallError(grpc.RpcError):  # type: ignore[misc]
    """A call's end, as grpc raises it."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__()
        self._code, self._text = code, text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CallError(UNAVAILABLE, "Exceeds maximum queue size: model …"), Kind.QUEUE_FULL),
        (InferenceServerException("Exceeds maximum queue size", "503"), Kind.QUEUE_FULL),
        (HttpError(503, "Exceeds maximum queue size"), Kind.QUEUE_FULL),
        (CallError(UNAVAILABLE, "Request timeout expired"), Kind.LATE),
        (CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), Kind.LATE),
        (HttpError(504, "too late"), Kind.LATE),
        (HttpError(500, "the worker process ended while it ran this request"), Kind.CRASHED),
        (CallError(grpc.StatusCode.CANCELLED, "CANCELLED"), Kind.CANCELLED),
        (CallError(UNAVAILABLE, "Socket closed"), Kind.LINK_LOST),
        (InferenceServerException("Connection reset", "StatusCode.UNAVAILABLE"), Kind.LINK_LOST),
        (ConnectionResetError(104, "reset"), Kind.LINK_LOST),
        (TimeoutError("timed out"), Kind.MISSING),
        (CallError(grpc.StatusCode.INTERNAL, "internal error"), Kind.UNEXPLAINED),
        (CallError(UNAVAILABLE, "upstream connect error"), Kind.UNEXPLAINED),
        (HttpError(400, "unexpected shape"), Kind.UNEXPLAINED),
        (BadResponse("half of it"), Kind.UNEXPLAINED),
        (SecondAnswer("HTTP/1.1 200 OK"), Kind.DOUBLE),
        (ValueError("a bug of the client"), Kind.UNEXPLAINED),
    ],
    ids=repr,
)
def test_errors_are_explained_by_what_they_say(error: Exception, kind: Kind) -> None:
    outcome = explain(error)
    assert outcome.kind is kind
    assert outcome.detail
