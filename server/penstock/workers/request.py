"""A request on its way through queue and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from hashlib import blake2b
from math import inf
from typing import Final, Protocol

import msgspec

from penstock.errors import PenstockError
from penstock.types import NO_PARAMETERS, Lease, OutputTensor, Parameter, SequenceTerms, Step
from penstock.workers.client_regions import Input, RegionInput
from penstock.workers.uneven_plan import UnevenPlan

Encode = Callable[["PendingRequest", list[OutputTensor]], bytes]
"""Makes the response's bytes while its tensors' views are valid. May raise PenstockError."""


NOT_THE_MODELS: Final = frozenset({"timeout", "priority", "model_digest"})
"""Parameters that no answer depends on: they are for the queue, or ask for more to be told."""

Answer = bytes | PenstockError
"""An encoded response, or what went wrong."""

Respond = Callable[["PendingRequest", Answer], None]
"""Takes a request's answer to its client. Called on the event loop; must not raise."""


class Part(msgspec.Struct, frozen=True):
    """One of the responses of a request that may have any number of them."""

    outputs: list[OutputTensor] | PenstockError | None
    """Views that are valid only while the part is handed out; None: it has nothing but `final` to say."""
    parameters: Mapping[str, Parameter]
    """That the model gave the response."""
    final: bool
    """It is the last one."""
    taken: Callable[[], None]
    """To be called once, when the client's transport has taken it: until then the model may have to wait."""


class Sink(Protocol):
    """Takes the responses of a decoupled model's request, one at a time. The last word is `respond`'s, as with any
    request: with empty bytes when there was a final part, else with the error that ended it."""

    def part(self, request: PendingRequest, part: Part) -> None:
        """Encode it and pass it on. Called on the event loop; must not raise."""
        ...


class RequestPlan(msgspec.Struct, frozen=True):
    """All that a header and a model's signature say together: made once a distinct header."""

    rows: int
    """Share of the batch dimension; 1 where the model does not batch."""
    shape_key: Hashable
    """Equal for requests that can be joined."""
    input_names: tuple[str, ...]
    """In the model's order."""
    datatypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    sizes_bytes: tuple[int, ...]
    """Of each input's bytes; -1 for BYTES."""
    order: tuple[int, ...] | None
    """Where in the header each input is; None when it is in the model's order."""
    output_names: tuple[str, ...]
    """What the client asked for, in its order; empty: all."""
    classes: Mapping[str, int]
    """Output → the top-k asked for by the classification extension."""
    parameters: dict[str, Parameter]
    priority: int = 1
    """Level of the queue, 1 the most urgent."""
    timeout_us: int | None = None
    """The request's own `timeout` parameter, where the model lets it have one."""
    queue_timeout_us: int | None = None
    """The same, where it only says when the request is late."""
    sequence: SequenceTerms | None = None
    """Of stateful models."""
    uneven: UnevenPlan | None = None
    """Of models whose requests may be joined though their shapes differ."""


class Queue(Protocol):
    """Where a request waits."""

    def cancel(self, request: PendingRequest) -> None:
        """Take the request out if it still waits."""


class RequestTrace(Protocol):
    """Is told when its request was executed."""

    def computed(
        self,
        started_ns: int,
        ended_ns: int,
        times: Timed,
        outputs: Sequence[OutputTensor] | PenstockError,
    ) -> None:
        """Its batch was sent to a worker then, and its answer came then."""

    def nested(self, request: PendingRequest, model: str, version: int) -> None:
        """To answer its request, this one is sent to that model: have it traced too."""


class Timed(Protocol):
    """How long each part of an execution took, in nanoseconds."""

    @property
    def input_ns(self) -> int: ...
    @property
    def infer_ns(self) -> int: ...
    @property
    def output_ns(self) -> int: ...


class Releasable(Protocol):
    """What keeps tensors valid."""

    def release(self) -> None:
        """They are not needed any more."""


class Shared(Protocol):
    """What several requests, which are all the same, wait for: one is run for all of them."""

    @property
    def ends_us(self) -> float:
        """When the last of them gives up; infinite: one of them never does."""
        ...


class Caller(Protocol):
    """Who sent a request that is no client's: an ensemble, or a model."""

    depth: int
    """How many requests there are above this one, each the next one's caller."""
    holder: object
    """The pool whose instance waits for it; None: no instance does."""

    def computed(self, times: Timed, lease: Releasable | None) -> None:
        """The request was executed, and will be encoded next. Its tensors stay valid until the lease is released, which
        is the caller's to do; None: only while they are encoded."""


class PendingRequest:
    """One request between its arrival and its answer, which `respond` gets, exactly once."""

    __slots__ = (
        "arrived_ns",
        "at_once",
        "attempts",
        "buffers",
        "caller",
        "deadline_is_clients",
        "deadline_us",
        "done",
        "encode",
        "id",
        "nbytes",
        "number",
        "plan",
        "priority",
        "queue",
        "quota",
        "respond",
        "response_parameters",
        "rows",
        "shape_key",
        "shared",
        "sink",
        "step",
        "tenant",
        "trace",
    )

    step: Step
    """Of a stateful model's request: set when it is given to an instance."""

    def __init__(
        self,
        plan: RequestPlan,
        request_id: str,
        buffers: Sequence[Input],
        encode: Encode,
        respond: Respond,
        arrived_ns: int,
        queue: Queue,
        received_bytes: int = 0,
        tenant: str = "default",
        deadline_us: float = inf,
        deadline_is_clients: bool = True,
    ) -> None:
        self.plan = plan
        self.id = request_id
        self.buffers = buffers
        self.encode = encode
        self.respond = respond
        self.done = False
        self.arrived_ns = arrived_ns
        self.queue = queue
        self.rows = plan.rows
        self.shape_key = plan.shape_key
        self.priority: float = plan.priority
        """The queue adds to it once the request is late."""
        self.tenant = tenant
        self.deadline_us = deadline_us
        """On the monotonic clock; infinite without one."""
        self.deadline_is_clients = deadline_is_clients
        """Else it is the server's: what is late gets another error."""
        self.nbytes = max(received_bytes, sum(map(len, buffers)))
        """What it holds: its inputs, or all that came with them and is kept alive by them, where that is more."""
        if plan.uneven is not None:
            self.nbytes = max(self.nbytes, plan.uneven.nbytes)
        self.number = 0
        """Its place in the queue, which sets it."""
        self.trace: RequestTrace | None = None
        self.caller: Caller | None = None
        """None: a client."""
        self.quota: Lease | None = None
        """What it has of its tenant's quota while it is not answered."""
        self.shared: Shared | None = None
        """Set for what is run for several: its deadline, which is one of theirs, tells its place in the queue, but not
        when it is given up. Who submits it sees to that."""
        self.sink: Sink | None = None
        """Set for those that take more than one response; decoupled models refuse others."""
        self.response_parameters: Mapping[str, Parameter] = NO_PARAMETERS
        """That the model gave the response which is to be encoded."""
        self.at_once = False
        """It may not wait for anything but its own execution: its caller's instance waits with it."""
        self.attempts = 0
        """How many workers died while they ran it."""

    def finish(self, answer: Answer) -> None:
        """Hand out the answer; what comes after the first one is dropped."""
        if not self.done:
            self.done = True
            if self.quota is not None:
                self.quota.release()
            self.respond(self, answer)

    @property
    def ends_us(self) -> float:
        """When nobody waits for it any more; infinite: somebody always does."""
        return self.deadline_us if self.shared is None else self.shared.ends_us

    @property
    def is_held_for(self) -> bool:
        """An instance of another model waits for it."""
        return self.caller is not None and self.caller.holder is not None

    @property
    def sequence(self) -> SequenceTerms:
        """What it says of its sequence, where its model is stateful."""
        assert self.plan.sequence is not None, "the signature of a stateful model checks it"
        return self.plan.sequence

    @property
    def queue_timeout_us(self) -> float | None:
        """After so long in the queue it is late, if that is its client's to say."""
        return self.plan.queue_timeout_us

    @property
    def input_bytes(self) -> int:
        """How long its inputs are together."""
        return sum(map(len, self.buffers))

    def digest(self) -> bytes:
        """Of all that a model can see of it but the id: inputs, parameters, and which outputs are asked for."""
        plan = self.plan
        parameters = {k: v for k, v in plan.parameters.items() if k not in NOT_THE_MODELS}
        seen = plan.input_names, plan.datatypes, plan.shapes, sorted(parameters.items())
        digest = blake2b(repr((seen, plan.output_names)).encode(), digest_size=16)
        for buffer in self.buffers:
            digest.update(bytes(buffer) if isinstance(buffer, RegionInput) else buffer)
        return digest.digest()

    def cancel(self) -> None:
        """Nobody waits for the answer any more: don't run the request if it has not begun."""
        self.queue.cancel(self)


def into(future: asyncio.Future[bytes]) -> Respond:
    """A `respond` for those who await their answer."""

    def respond(_: PendingRequest, answer: Answer) -> None:
        if future.done():
            return
        if isinstance(answer, PenstockError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    return respond
