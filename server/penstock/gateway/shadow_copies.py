"""Copies of requests that the candidate of a roll-out answers for nobody: both versions' outputs are compared.

A copy is sent when its client has its answer: it takes no time of that request. It is the first to go under load: none
is sent while the stable version's queue is long, or while too many are under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from penstock.errors import Cancelled, PenstockError, QueueFull, Unavailable
from penstock.gateway.output_looks import Summary, agree, copied, has_non_finite, size_bytes
from penstock.gateway.rollout_sight import RolloutCounts, Run, kind_of
from penstock.repository.served_model import ServedModel
from penstock.rollouts.observation import Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan
from penstock.types import OutputTensor
from penstock.workers.client_regions import Input
from penstock.workers.request import Answer, PendingRequest, RequestPlan

log = logging.getLogger(__name__)

MAX_COPIES: Final = 64
MAX_BYTES: Final = 64 << 20
"""Of inputs and outputs that are kept for copies, of one roll-out."""
MAX_NS: Final = 10_000_000_000
"""That a copy may take."""
LAST_LEVEL: Final = 1 << 20
"""Of the candidate's queue: whoever asks it for something goes first."""
BUSY_ROUNDS: Final = 2
"""A model whose queue holds more than so many full batches for each instance has no time for copies."""
ASIDE_FROM_BYTES: Final = 64 << 10
"""Outputs of this size are compared beside the event loop."""


class Turn(Protocol):
    """Who has answered the request, and what it is at other versions."""

    model: ServedModel

    def plan_of(self, model: ServedModel) -> RequestPlan:
        """The request's plan there. Raises InvalidRequest."""
        ...


class Rollout(Protocol):
    """As `live_rollout.py` has it."""

    @property
    def plan(self) -> RolloutPlan:
        """What it is to do."""
        ...

    summary: Summary
    counts: RolloutCounts

    def candidate_model(self) -> ServedModel | None:
        """None: it can't take requests."""
        ...

    def paired(self, pair: ShadowPair) -> None:
        """Both versions have run a request."""
        ...


class Kept(NamedTuple):
    """An answered request that will be asked once more."""

    turn: Turn
    id: str
    tenant: str
    plan: RequestPlan
    buffers: Sequence[Input]
    outputs: Sequence[OutputTensor]
    nbytes: int


class ShadowCopies:
    """Of one roll-out."""

    def __init__(self, live: Rollout) -> None:
        self._live = live
        self.under_way = 0
        self.nbytes = 0

    def keep(
        self, turn: Turn, request: PendingRequest, outputs: Sequence[OutputTensor]
    ) -> Kept | None:
        """A request that is being answered, for `send`, which is due next; None: there is no room for it. Its tensors
        are valid now."""
        nbytes = request.nbytes + size_bytes(outputs)
        full = self.under_way >= MAX_COPIES or self.nbytes + nbytes > MAX_BYTES
        if full or _is_busy(turn.model):
            self._live.counts.dropped_copies += 1
            return None
        self.under_way += 1
        self.nbytes += nbytes
        buffers: Sequence[Input] = request.buffers
        if request.caller is not None:
            # who sent it needs them no longer than until it is answered
            buffers = [bytes(buffer) for buffer in buffers]
        return Kept(
            turn, request.id, request.tenant, request.plan, buffers, copied(outputs), nbytes
        )

    def send(self, kept: Kept, stable: Observation) -> None:
        """Have the candidate answer it too. `stable`: how the stable version did."""
        copy = _Copy(self._live, self, kept, stable)
        try:
            model = self._live.candidate_model()
            if model is None:
                raise Unavailable("the candidate can't take requests")
            copy.send(model)
        except PenstockError as error:
            copy.failed(error)

    def ended(self, kept: Kept) -> None:
        """It needs no room any more."""
        self.under_way -= 1
        self.nbytes -= kept.nbytes


class _Copy:
    """One, under way at the candidate."""

    def __init__(
        self, live: Rollout, copies: ShadowCopies, kept: Kept, stable: Observation
    ) -> None:
        self._live = live
        self._copies = copies
        self._kept = kept
        self._stable = stable
        self._run = Run(None)
        self._got: list[OutputTensor] = []

    def send(self, model: ServedModel) -> None:
        """Raises PenstockError where it is refused."""
        kept, sent_ns = self._kept, time.monotonic_ns()
        plan = kept.turn.plan_of(model)
        request = PendingRequest(
            plan,
            kept.id,
            arranged(plan, kept.plan, kept.buffers),
            self._encode,
            self._respond,
            sent_ns,
            model.pool,
            kept.nbytes,
            kept.tenant,
            (sent_ns + MAX_NS) / 1000,
            deadline_is_clients=False,
        )
        request.priority = LAST_LEVEL
        request.trace = self._run
        model.pool.submit(request)

    def failed(self, error: PenstockError) -> None:
        """The candidate did not answer. That it had no time is nothing against it, for nobody waits for it."""
        self._copies.ended(self._kept)
        if isinstance(error, QueueFull | Cancelled):
            self._live.counts.dropped_copies += 1
        else:
            kind, unit = kind_of(error), self._stable.unit
            version = self._live.plan.candidate
            self._tell(Observation(version, 0, ok=False, error_kind=kind, unit=unit), None)

    def _encode(self, _: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says: what is compared later."""
        self._got = copied(outputs)
        return b""

    def _respond(self, _: PendingRequest, answer: Answer) -> None:
        """As `Respond` says."""
        if isinstance(answer, PenstockError):
            self.failed(answer)
        elif size_bytes(self._got) < ASIDE_FROM_BYTES:
            self._compared(self._look)
        else:
            looking = asyncio.get_running_loop().run_in_executor(None, self._look)
            looking.add_done_callback(lambda done: self._compared(done.result))

    def _look(self) -> tuple[Observation, bool]:
        """In a thread, where it takes its time."""
        non_finite = has_non_finite(self._got)
        observed = Observation(
            self._live.plan.candidate,
            self._run.took_us,
            non_finite=non_finite,
            summary=None if non_finite else self._live.summary(self._got),
            unit=self._stable.unit,
        )
        return observed, not agree(self._kept.outputs, self._got, self._live.plan.tolerance)

    def _compared(self, found: Callable[[], tuple[Observation, bool]]) -> None:
        """Whatever was found, or went wrong at that: its room is free."""
        self._copies.ended(self._kept)
        try:
            observed, mismatch = found()
        except Exception:
            log.exception("a copy for model '%s' could not be compared", self._live.plan.model)
        except asyncio.CancelledError:
            return
        else:
            self._tell(observed, mismatch)

    def _tell(self, candidate: Observation, mismatch: bool | None) -> None:
        self._live.paired(ShadowPair(self._stable, candidate, mismatch))


def _is_busy(model: ServedModel) -> bool:
    """Whether so much waits that copies would be in the way."""
    rows = max(1, len(model.pool.instances)) * max(1, model.config.max_batch_size)
    return model.statistics.pending > BUSY_ROUNDS * rows


def arranged(plan: RequestPlan, given: RequestPlan, buffers: Sequence[Input]) -> Sequence[Input]:
    """A request's inputs, which are in the order of `given`, in the order of `plan`."""
    if plan.input_names == given.input_names:
        return buffers
    named = dict(zip(given.input_names, buffers, strict=True))
    return [named[name] for name in plan.input_names]
