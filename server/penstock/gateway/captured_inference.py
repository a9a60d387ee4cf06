"""Inferences of which records are kept: a request whose turn it is has somebody beside it who notes what goes in and
what comes out. All others only count down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from penstock.capture.capture import Capture, ModelCapture, Plan
from penstock.capture.messages import Kept, Record, SequencePlace
from penstock.errors import InvalidRequest, PenstockError
from penstock.gateway.client_memory import Wrapped
from penstock.gateway.inference import Bound, Inference
from penstock.gateway.inference_audit import AuditedInference
from penstock.repository.model_pool import Taker
from penstock.repository.served_model import ServedModel
from penstock.types import NO_TERMS, Buffer, CallTerms, OutputTensor
from penstock.workers.client_regions import RegionInput
from penstock.workers.request import Answer, Encode, Part, PendingRequest, Respond, Sink

OK: Final = "ok"
PARAMETER: Final = "capture"
"""Of a request: whatever is not `true` has it not kept."""
RESPONSE_BYTES: Final = 256
"""What a response takes beside its tensors: a model may have any number of small ones."""


class CapturedInference(Inference):
    """One a gateway that keeps records."""

    capture: Capture
    """Set before the first request."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._captures: dict[int, tuple[ServedModel, ModelCapture]] = {}
        self._captures_of = -1

    def submit(
        self,
        bound: Bound,
        request_id: str,
        buffers: Sequence[Buffer],
        encode: Encode,
        respond: Respond,
        received_bytes: int,
        terms: CallTerms = NO_TERMS,
        sink: Sink | None = None,
    ) -> PendingRequest:
        """As Inference says."""
        known = self._captures.get(id(bound.model))
        plan = (known or self._learn(bound))[1].plan(terms.tenant)
        if plan is None or not plan.sampler.take():
            return super().submit(
                bound, request_id, buffers, encode, respond, received_bytes, terms, sink
            )
        return self._submit_noted(
            plan, bound, request_id, buffers, encode, respond, received_bytes, terms, sink
        )

    def _learn(self, bound: Bound) -> tuple[ServedModel, ModelCapture]:
        if self._captures_of != bound.generation:
            # so that models which were unloaded are not kept by it
            self._captures.clear()
            self._captures_of = bound.generation
        model = bound.model
        made = model, self.capture.of(model.version, model.config)
        self._captures[id(model)] = made
        return made

    def _submit_noted(
        self,
        plan: Plan,
        bound: Bound,
        request_id: str,
        buffers: Sequence[Buffer],
        encode: Encode,
        respond: Respond,
        received_bytes: int,
        terms: CallTerms,
        sink: Sink | None,
    ) -> PendingRequest:
        notes = None
        if self.capture.takes(plan, terms.tenant, bound.header.parameters.get(PARAMETER)):
            notes = Notes(self.capture, plan, bound.model, request_id, terms.tenant, respond)
            bound = replace(bound, pool=_Noting(bound.pool, notes))
            respond = notes.respond
        try:
            return super().submit(
                bound, request_id, buffers, encode, respond, received_bytes, terms, sink
            )
        except PenstockError as error:
            # what was never a request of this model has nothing to learn from
            if notes is not None and not isinstance(error, InvalidRequest):
                notes.end(type(error).__name__)
            raise


class CapturedAuditedInference(CapturedInference, AuditedInference):
    """Records are kept, and digests are in the audit log."""


class _Noting:
    """Stands before the pool of a request that is noted."""

    __slots__ = ("_notes", "_pool")

    def __init__(self, pool: Taker, notes: Notes) -> None:
        self._pool = pool
        self._notes = notes

    def submit(self, request: PendingRequest) -> None:
        """As Taker."""
        self._notes.begin(request)
        self._pool.submit(request)

    def submit_at_once(self, request: PendingRequest) -> None:
        """As Taker."""
        self._notes.begin(request)
        self._pool.submit_at_once(request)

    def cancel(self, request: PendingRequest) -> None:
        """As Taker."""
        self._pool.cancel(request)


class _NotedEncode(Wrapped):
    """Stands where a request's encoder was."""

    __slots__ = ("_notes",)

    def __init__(self, encode: Encode, notes: Notes) -> None:
        super().__init__(encode)
        self._notes = notes

    def of(self, model: ServedModel) -> Wrapped:
        """As Retargetable."""
        self._notes.answered_by(model)
        return super().of(model)

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says: once an answer, or once a response where there are several."""
        self._notes.outputs(outputs)
        return self.encode(request, outputs)


class _NotedSink:
    """Stands where what takes a request's responses was: their errors are not encoded."""

    __slots__ = ("_notes", "_sink")

    def __init__(self, sink: Sink, notes: Notes) -> None:
        self._sink = sink
        self._notes = notes

    def part(self, request: PendingRequest, part: Part) -> None:
        """As `Sink` says."""
        if isinstance(part.outputs, PenstockError):
            self._notes.outcome = type(part.outputs).__name__
        self._sink.part(request, part)


class Notes:
    """Of one request, from its queue to its answer."""

    __slots__ = (
        "_capture",
        "_id",
        "_inputs",
        "_left",
        "_plan",
        "_respond",
        "_responses",
        "_sequence",
        "_started_ns",
        "_tenant",
        "_time_us",
        "model",
        "outcome",
    )

    def __init__(
        self,
        capture: Capture,
        plan: Plan,
        model: ServedModel,
        request_id: str,
        tenant: str,
        respond: Respond,
    ) -> None:
        self._capture = capture
        self._plan = plan
        self.model = model
        self._id = request_id
        self._tenant = tenant
        self._respond = respond
        self._time_us = time.time_ns() // 1000
        self._started_ns = time.monotonic_ns()
        self._inputs: list[Kept | None] = [None] * len(plan.inputs)
        self._responses: list[list[Kept | None]] = []
        self._sequence: SequencePlace | None = None
        self.outcome = OK
        """Unless its answer is another one."""
        self._left = capture.max_record_bytes
        """Bytes that may still be kept; below 0: nothing is."""

    def begin(self, request: PendingRequest) -> None:
        """It is about to be queued, with its inputs in the model's order."""
        request.encode = _NotedEncode(request.encode, self)
        if request.sink is not None:
            request.sink = _NotedSink(request.sink, self)
        try:
            self._note_inputs(request)
        except Exception:  # noqa: BLE001 - whatever it is, the request goes on
            self._left = -1
            self._capture.failed()

    def answered_by(self, model: ServedModel) -> None:
        """Another version answers than the one it was sent to, as roll-outs may decide: the record is that one's."""
        if self._left < 0:
            return
        plan = self._capture.of(model.version, model.config).plan(self._tenant)
        if plan is None or not self._capture.begins(plan):
            self._left = -1
            return
        before = self._plan.inputs
        inputs: list[Kept | None] = [None] * len(plan.inputs)
        for name, place in plan.inputs.items():
            if name in before:
                inputs[place] = self._inputs[before[name]]
        self._plan, self.model, self._inputs = plan, model, inputs

    def outputs(self, outputs: list[OutputTensor]) -> None:
        """A response is about to be encoded."""
        if self._left >= 0:
            try:
                self._note_outputs(outputs)
            except Exception:  # noqa: BLE001 - whatever it is, the request goes on
                self._left = -1
                self._capture.failed()

    def respond(self, request: PendingRequest, answer: Answer) -> None:
        """As `Respond` says. The client comes first."""
        self._respond(request, answer)
        self.end(type(answer).__name__ if isinstance(answer, PenstockError) else self.outcome)

    def end(self, outcome: str) -> None:
        """It has its answer."""
        if self._left < 0:
            return
        try:
            self._capture.put(
                Record(
                    self._plan.table.number,
                    self._time_us,
                    (time.monotonic_ns() - self._started_ns) // 1000,
                    self._id,
                    self._tenant,
                    self.model.digest_text,
                    outcome,
                    self._sequence,
                    self._inputs,
                    self._responses,
                )
            )
        except Exception:  # noqa: BLE001 - whatever it is, the request goes on
            self._capture.failed()
        self._left = -1

    def _note_inputs(self, request: PendingRequest) -> None:
        places, plan = self._plan.inputs, request.plan
        for at, name in enumerate(plan.input_names):
            place = places.get(name)
            if place is None:
                continue
            buffer = request.buffers[at]
            if not self._has_room(len(buffer)):
                return
            data = bytes(buffer) if isinstance(buffer, RegionInput) else buffer
            self._inputs[place] = Kept(plan.shapes[at], memoryview(data))
        if (terms := plan.sequence) is not None:
            self._sequence = SequencePlace(str(terms.id), terms.start, terms.end)

    def _note_outputs(self, outputs: list[OutputTensor]) -> None:
        places = self._plan.outputs
        kept: list[Kept | None] = [None] * len(places)
        if not self._has_room(RESPONSE_BYTES):
            return
        for output in outputs:
            place = places.get(output.name)
            if place is None:
                continue
            if not self._has_room(len(output.data)):
                return
            # a view of a slab, which others write soon
            kept[place] = Kept(output.shape, memoryview(bytes(output.data)))
        self._responses.append(kept)

    def _has_room(self, nbytes: int) -> bool:
        self._left -= nbytes
        if self._left >= 0:
            return True
        self._capture.too_large()
        return False
