"""The pool of a decoupled model: its requests have any number of responses, and may outlive their batch's execution."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial

from penstock.errors import InternalError, PenstockError, Unavailable, Unsupported
from penstock.repository.pool import Pool
from penstock.repository.sequence_pool import SequencePool
from penstock.telemetry.statistics import FailureReason
from penstock.types import OutputTensor
from penstock.workers.gather import error_of
from penstock.workers.instance import Instance
from penstock.workers.open_request import OpenRequest, StreamingBatch, StreamTimes
from penstock.workers.request import Part, PendingRequest
from penstock.workers.worker_events import Response

log = logging.getLogger(__name__)

UNARY = "ModelInfer RPC doesn't support models with decoupled transaction policy"
"""To gRPC's ModelInfer; HTTP says its own before it comes to a pool."""


class StreamingPool(Pool):
    """As Pool, but for what follows from streams."""

    def submit(self, request: PendingRequest) -> None:
        """As the base class says, and Unsupported for a request that takes only one response."""
        self._check_sink(request)
        super().submit(request)

    def submit_at_once(self, request: PendingRequest) -> None:
        """As the base class says, and Unsupported for a request that takes only one response."""
        self._check_sink(request)
        super().submit_at_once(request)

    def _check_sink(self, request: PendingRequest) -> None:
        if request.sink is None:
            if request.caller is None:
                raise Unsupported(UNARY)
            model = self._statistics.model
            raise Unsupported(
                f"model '{model}' is decoupled, and was asked for exactly one response"
            )

    def add(self, instance: Instance, index: int) -> None:
        """As the base class says."""
        instance.stream_listener = self
        super().add(instance, index)

    def on_response(
        self, instance: Instance, batch: StreamingBatch, opened: OpenRequest, response: Response
    ) -> None:
        """A response came: hand it out, unless nobody waits for it any more."""
        request, now_ns = opened.request, time.monotonic_ns()
        outputs = _outputs_of(response)
        place = opened.responses
        opened.responses += 1
        opened.output_ns += response.output_ns
        if request.done:
            self._statistics.responses.cancel(place, response.infer_ns)
        else:
            self._count(opened, place, outputs, response, now_ns)
            self._hand_out(opened, outputs, response)
            if response.final and not request.done:
                self._end(batch, opened, outputs, now_ns)
        if batch.ended:
            self._record(batch)

    def on_executed(self, instance: Instance, batch: StreamingBatch) -> None:
        """The instance may run its next batch, whatever this one's requests still have to say."""
        instance.release(batch)
        self._finished(instance, batch, time.monotonic_ns())
        if batch.ended:
            self._record(batch)
        self._after_batch()

    def _hand_out(
        self,
        opened: OpenRequest,
        outputs: list[OutputTensor] | PenstockError | None,
        response: Response,
    ) -> None:
        request = opened.request
        assert request.sink is not None, "submit refuses others"
        # it can't be run again any more
        request.buffers = ()
        request.response_parameters = response.parameters
        nbytes = sum([len(tensor.data) for tensor in response.outputs or ()])
        taken = partial(opened.taken, nbytes)
        try:
            request.sink.part(request, Part(outputs, response.parameters, response.final, taken))
        except Exception:
            log.exception("a response could not be handed on")
            self._answers.fail(request, InternalError("response not encoded"), FailureReason.OTHER)
            self._stop(request)

    def _count(
        self,
        opened: OpenRequest,
        place: int,
        outputs: list[OutputTensor] | PenstockError | None,
        response: Response,
        now_ns: int,
    ) -> None:
        responses = self._statistics.responses
        infer_ns, output_ns = response.infer_ns, response.output_ns
        if outputs is None:
            responses.empty(place, infer_ns)
        elif isinstance(outputs, PenstockError):
            opened.failed = True
            responses.fail(place, infer_ns, output_ns)
        else:
            responses.success(place, infer_ns, output_ns)
        if not place and outputs is not None:
            self._statistics.record_first_response(now_ns - opened.request.arrived_ns)

    def _end(
        self,
        batch: StreamingBatch,
        opened: OpenRequest,
        outputs: list[OutputTensor] | PenstockError | None,
        now_ns: int,
    ) -> None:
        """Its final response was handed out."""
        request = opened.request
        infer_ns = max(0, now_ns - batch.started_ns - opened.output_ns)
        times = StreamTimes(0, infer_ns, opened.output_ns)
        if request.trace is not None:
            request.trace.computed(batch.started_ns, now_ns, times, outputs or ())
        if request.caller is not None:
            request.caller.computed(times, None)
        if opened.failed:
            self._answers.count_failure(request, FailureReason.BACKEND)
        else:
            opened.total_ns = now_ns - request.arrived_ns
        self._answers.end(request)

    def _record(self, batch: StreamingBatch) -> None:
        """Count a batch that has ended."""
        assert batch.executed is not None, "else it has not ended"
        succeeded = [each for each in batch.opened if each.total_ns is not None]
        self._statistics.record_batch(
            time.time_ns() // 1_000_000,
            sum(request.rows for request in batch.requests),
            [batch.started_ns - each.request.arrived_ns for each in succeeded],
            [each.total_ns or 0 for each in succeeded],
            batch.executed.input_ns,
            batch.executed.infer_ns,
            sum(each.output_ns for each in batch.opened),
        )
        self._after_batch()

    def _busy_since_us(self, instance: Instance) -> float | None:
        since_us = super()._busy_since_us(instance)
        # a model that goes on sending does not hang
        return None if since_us is None else max(since_us, instance.heard_ns / 1000)

    def _recover(self, instance: Instance, reason: str, *, hung: bool) -> None:
        """Run anew what had no response yet; the others end here."""
        now_us = time.monotonic_ns() / 1000
        suspects: list[PendingRequest] = []
        innocent: list[PendingRequest] = []
        # it ran all whose execution was over, and the first of the others
        begun = len(instance.streaming) + 1
        for position, batch in enumerate(instance.batches):
            assert isinstance(batch, StreamingBatch), "this instance has no others"
            for opened in batch.opened:
                request = opened.request
                if opened.ended or request.done:
                    continue
                if opened.responses:
                    text = f"the worker process ended amid this request's responses: {reason}"
                    self._answers.fail(request, Unavailable(text), FailureReason.BACKEND)
                else:
                    (suspects if position < begun else innocent).append(request)
        again: Sequence[PendingRequest] = suspects
        if suspects:
            again = self._poison.survivors(suspects, reason, now_us, hung=hung)
        for request in (*again, *innocent):
            # an error of one may have cancelled others that were sent by the same caller
            if not request.done:
                self.scheduler.again(request, now_us)


class StreamingSequencePool(StreamingPool, SequencePool):
    """Of a stateful model that is decoupled: a sequence goes on with its next request once the one before it is
    executed, though that one's responses may still come."""

    def _recover(self, instance: Instance, reason: str, *, hung: bool) -> None:
        SequencePool._recover(self, instance, reason, hung=hung)
        # what was executed is not the scheduler's any more
        for batch in instance.batches:
            for request in batch.requests:
                text = f"the worker process ended amid this request's responses: {reason}"
                self._answers.fail(request, Unavailable(text), FailureReason.BACKEND)


def _outputs_of(response: Response) -> list[OutputTensor] | PenstockError | None:
    if response.error is not None:
        return error_of(response.error)
    if response.outputs is None:
        return None
    return [OutputTensor(t.name, t.datatype, t.shape, t.data) for t in response.outputs]
