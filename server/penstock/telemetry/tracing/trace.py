"""One request's trace: when it passed which point, and, if asked for, its tensors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from penstock.errors import PenstockError
from penstock.types import OutputTensor, TracedCall
from penstock.workers.client_regions import Input
from penstock.workers.request import Answer, PendingRequest, Respond, Timed

QUEUE_INPUT: Final = "TENSOR_QUEUE_INPUT"
BACKEND_OUTPUT: Final = "TENSOR_BACKEND_OUTPUT"

_SENDS: Final = {
    "HTTP": ("HTTP_SEND_START", "HTTP_SEND_END"),
    "GRPC": ("GRPC_SEND_START", "GRPC_SEND_END"),
}
_RECEIVES: Final = {
    "HTTP": ("HTTP_RECV_START", "HTTP_RECV_END"),
    "GRPC": ("GRPC_WAITREAD_START", "GRPC_WAITREAD_END"),
}


class TracedTensor:
    """A tensor as it passed."""

    __slots__ = ("activity", "data", "datatype", "name", "shape")

    def __init__(
        self, activity: str, name: str, datatype: str, shape: Sequence[int], data: Input
    ) -> None:
        self.activity = activity
        self.name = name
        self.datatype = datatype
        self.shape = tuple(shape)
        # a copy: slabs and clients' regions are written again
        self.data = bytes(data)


class Trace:
    """Collects on the event loop; what becomes of it, a thread decides once it has ended.

    Times are of the monotonic clock, in nanoseconds; `offset_ns` makes them time since the epoch. A model that runs
    sends requests to others, to answer this one, has children.
    """

    __slots__ = (
        "_end",
        "_ids",
        "_tensors_too",
        "call",
        "children",
        "error",
        "group",
        "id",
        "model",
        "offset_ns",
        "parent_id",
        "points",
        "request_id",
        "sends",
        "tensors",
        "version",
    )

    def __init__(
        self,
        ids: Iterator[int],
        group: object,
        model: str,
        version: int,
        request_id: str,
        call: TracedCall | None,
        end: Callable[[Trace], None],
        *,
        tensors: bool,
        parent_id: int = 0,
    ) -> None:
        """`ids` give all traces their numbers. `group`: the sampler it is of. `end` is called once, when it is
        complete."""
        self.id = next(ids)
        self._ids = ids
        self.group = group
        self.model = model
        self.version = version
        self.request_id = request_id
        self.call = call
        self.parent_id = parent_id
        self.offset_ns = time.time_ns() - time.monotonic_ns()
        self.points: list[tuple[str, int]] = []
        """Of the request, from REQUEST_START to REQUEST_END."""
        self.sends: list[tuple[str, int]] = []
        """Of its call, after its execution."""
        self.tensors: list[TracedTensor] = []
        self.children: list[Trace] = []
        self.error = ""
        self._tensors_too = tensors
        self._end = end

    @property
    def receives(self) -> list[tuple[str, int]]:
        """Of its call, before its execution."""
        if self.call is None:
            return []
        start, end = _RECEIVES[self.call.protocol]
        return [(start, self.call.started_ns), (end, self.call.received_ns)]

    def follow(self, request: PendingRequest) -> None:
        """Be the trace of a request that is about to be queued."""
        request.trace = self
        request.respond = self._responding(request.respond)
        self.points += (("REQUEST_START", request.arrived_ns), ("QUEUE_START", request.arrived_ns))
        if self._tensors_too:
            plan = request.plan
            for name, datatype, shape, data in zip(
                plan.input_names, plan.datatypes, plan.shapes, request.buffers, strict=True
            ):
                self.tensors.append(TracedTensor(QUEUE_INPUT, name, datatype, shape, data))

    def computed(
        self,
        started_ns: int,
        ended_ns: int,
        times: Timed,
        outputs: Sequence[OutputTensor] | PenstockError,
    ) -> None:
        """Its batch was sent to a worker then, and its answer came then. The worker may have had another batch to end
        first, so what it measured is counted back from the answer."""
        output_ns = max(started_ns, ended_ns - times.output_ns)
        infer_ns = max(started_ns, output_ns - times.infer_ns)
        input_ns = max(started_ns, infer_ns - times.input_ns)
        self.points += (
            ("COMPUTE_START", input_ns),
            ("COMPUTE_INPUT_END", infer_ns),
            ("COMPUTE_OUTPUT_START", output_ns),
            ("COMPUTE_END", ended_ns),
        )
        if self._tensors_too and not isinstance(outputs, PenstockError):
            for each in outputs:
                self.tensors.append(
                    TracedTensor(BACKEND_OUTPUT, each.name, each.datatype, each.shape, each.data)
                )

    def nested(self, request: PendingRequest, model: str, version: int) -> None:
        """To answer its request, this one is sent to that model: its trace is part of this one."""
        child = Trace(
            self._ids,
            self.group,
            model,
            version,
            request.id,
            None,
            lambda _: None,
            tensors=self._tensors_too,
            parent_id=self.id,
        )
        self.children.append(child)
        child.follow(request)

    def end(self, answer: Answer | None = None) -> None:
        """It is complete. `answer`: what the client got, or None when that is not told."""
        if isinstance(answer, PenstockError):
            self.error = str(answer)
        if not self.points or self.points[-1][0] != "REQUEST_END":
            self.points.append(("REQUEST_END", time.monotonic_ns()))
        self._end(self)

    def _responding(self, respond: Respond) -> Respond:
        def respond_and_end(request: PendingRequest, answer: Answer) -> None:
            now_ns = time.monotonic_ns()
            self.points += (("INFER_RESPONSE_COMPLETE", now_ns), ("REQUEST_END", now_ns))
            if self.call is None:
                respond(request, answer)
            else:
                start, end = _SENDS[self.call.protocol]
                self.sends.append((start, now_ns))
                respond(request, answer)
                self.sends.append((end, time.monotonic_ns()))
            self.end(answer)

        return respond_and_end
