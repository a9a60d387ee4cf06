"""Each request's one answer: in order where the model asks for that, counted, and never a second time."""

from __future__ import annotations

import logging
import time

from penstock.errors import InternalError, PenstockError
from penstock.scheduling.ordering import InOrder
from penstock.scheduling.scheduler import Scheduler
from penstock.telemetry.statistics import FailureReason, ModelStatistics
from penstock.types import OutputTensor
from penstock.workers.request import Answer, PendingRequest

log = logging.getLogger(__name__)


class Answers:
    """Hands answers to requests."""

    def __init__(
        self,
        scheduler: Scheduler[PendingRequest],
        statistics: ModelStatistics,
        *,
        preserve_ordering: bool,
    ) -> None:
        self._scheduler = scheduler
        self._statistics = statistics
        self._in_order = InOrder[PendingRequest, Answer]() if preserve_ordering else None

    def expect(self, request: PendingRequest) -> None:
        """The request is accepted."""
        if self._in_order is not None:
            self._in_order.expect(request)

    def encode(self, request: PendingRequest, outputs: list[OutputTensor] | PenstockError) -> bool:
        """Answer with outputs, whose views are valid now; whether that was a success."""
        answer = encoded(request, outputs)
        if isinstance(answer, bytes):
            self._answer(request, answer)
            return True
        self.fail(request, answer, FailureReason.BACKEND)
        return False

    def end(self, request: PendingRequest) -> None:
        """Answer a request whose responses went out one by one, the final one too."""
        self._answer(request, b"")

    def fail(self, request: PendingRequest, error: PenstockError, reason: FailureReason) -> None:
        """Answer with an error, when its turn has come."""
        if not request.done:
            self.count_failure(request, reason)
            self._answer(request, error)

    def abandon(self, request: PendingRequest, error: PenstockError, reason: FailureReason) -> None:
        """Answer with an error now, whosever turn it is."""
        self.count_failure(request, reason)
        request.finish(error)
        # it is answered already: this is for those whose turn comes after it
        self._answer(request, error)

    def count_failure(self, request: PendingRequest, reason: FailureReason) -> None:
        """Count a request that failed, or was refused."""
        self._statistics.record_failure(reason, time.monotonic_ns() - request.arrived_ns)

    def _answer(self, request: PendingRequest, answer: Answer) -> None:
        if self._in_order is None or request.at_once:
            self._finish(request, answer)
            return
        for ready, its_answer in self._in_order.complete(request, answer):
            self._finish(ready, its_answer)

    def _finish(self, request: PendingRequest, answer: Answer) -> None:
        if not request.done:
            request.finish(answer)
            self._scheduler.answered(request, in_time=isinstance(answer, bytes))


def encoded(request: PendingRequest, outputs: list[OutputTensor] | PenstockError) -> Answer:
    """The response's bytes, made while the outputs' views are valid."""
    if isinstance(outputs, PenstockError):
        return outputs
    try:
        return request.encode(request, outputs)
    except PenstockError as error:
        return error
    except Exception:
        log.exception("a response could not be encoded")
        return InternalError("response not encoded")
