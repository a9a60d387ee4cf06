"""The instances of one model version, and the way of its requests: queue → batch → worker → answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from penstock.errors import (
    InternalError,
    ModelFailed,
    PenstockError,
    QueueFull,
    Unavailable,
    WorkerCrashed,
)
from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.ordering import InOrder
from penstock.telemetry.statistics import FailureReason, ModelStatistics
from penstock.types import OutputTensor
from penstock.workers.gather import scatter
from penstock.workers.instance import Instance, RunningBatch
from penstock.workers.messages import BatchFailed, Done
from penstock.workers.request import Answer, PendingRequest

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""Workers that one request may see die: after the first it runs alone, after the second it gets the error."""

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 30.0
STABLE_S = 10.0
"""A worker that lived this long starts the back-off anew."""

CANCELLED = Unavailable("the client is gone")
"""Stands for the answer of a request that nobody waits for."""

PATIENCE = 3
"""Crashes in a row, without one instance left, that new requests wait out; after more they are refused at once."""

StartInstance = Callable[[int], Awaitable[Instance]]
"""Starts and loads the instance of that index."""


class Pool:
    """Owns a model version's queue and instances. All of it runs on the gateway's event loop."""

    def __init__(
        self,
        policy: BatchPolicy,
        preserve_ordering: bool,
        statistics: ModelStatistics,
        start: StartInstance,
        on_change: Callable[[], None],
    ) -> None:
        self._statistics = statistics
        self._start = start
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._batcher: Batcher[PendingRequest] = Batcher(statistics.model, policy)
        self._in_order = InOrder[PendingRequest, Answer]() if preserve_ordering else None
        self._instances: dict[Instance, int] = {}
        self._started_at: dict[Instance, float] = {}
        self._restarts: set[asyncio.Task[None]] = set()
        self._crashes: dict[int, int] = {}
        self._failed_starts: set[int] = set()
        self._dispatching = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        self.last_crash = ""

    @property
    def ready(self) -> bool:
        """Some instance can take work."""
        return bool(self._instances)

    @property
    def accepts(self) -> bool:
        """Requests may come: some instance can take them, or one that crashed should soon be back."""
        return bool(self._instances) or any(
            crashes <= PATIENCE and index not in self._failed_starts
            for index, crashes in self._crashes.items()
        )

    @property
    def instances(self) -> int:
        """How many are loaded."""
        return len(self._instances)

    def add(self, instance: Instance, index: int) -> None:
        """A loaded instance takes part from now on."""
        instance.listener = self
        self._instances[instance] = index
        self._statistics.ready = True
        self._started_at[instance] = self._loop.time()
        if instance.process.exited.done():
            self.on_exit(instance, instance.process.exited.result())
        else:
            self._schedule()

    def submit(self, request: PendingRequest) -> None:
        """Queue a request, which will get its answer. Raises QueueFull, Unavailable."""
        if self._closed:
            raise Unavailable(f"model '{self._statistics.model}' is being unloaded")
        try:
            self._batcher.add(request, request.arrived_ns // 1000)
        except QueueFull:
            self._fail_count(FailureReason.REJECTED, request)
            raise
        if self._in_order is not None:
            self._in_order.expect(request)
        if not self._dispatching:
            # at the end of this turn of the loop, so that all that came together goes together
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def cancel(self, request: PendingRequest) -> None:
        """The client is gone: don't run the request if it still waits."""
        if self._batcher.cancel(request):
            request.finish(CANCELLED)
            # nobody hears this second answer: it is for those whose turn comes after it
            self._answer(request, CANCELLED)
            self._count_waiting()
            self._fail_count(FailureReason.CANCELED, request)
            self._after_batch()

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, answer those that are here for up to `grace_s`, then end the instances."""
        self._closed = True
        if not self._empty:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=grace_s)
        for task in self._restarts:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for request in self._batcher.drain():
            self._fail(request, Unavailable("the model was unloaded"), FailureReason.OTHER)
        instances, self._instances = list(self._instances), {}
        for instance in instances:
            for batch in instance.running.values():
                self._fail_batch(batch, Unavailable("the model was unloaded"))
            instance.close(grace_s=5)
        await asyncio.gather(*(instance.process.exited for instance in instances))

    # ── queue → worker ──────────────────────────────────────────────────────────────────────────────────────────────

    def _schedule(self) -> None:
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Give due batches to instances until there is no batch or no instance left."""
        self._dispatching = False
        now_ns = time.monotonic_ns()
        while self._batcher.requests:
            instance = self._free_instance()
            if instance is None:
                break
            # a busy worker gets only what no waiting could make bigger: the rest may still grow while it works
            batch = self._batcher.take(now_ns // 1000, only_full=not instance.idle)
            if not batch:
                self._wait_until_due(now_ns // 1000, idle=instance.idle)
                break
            try:
                instance.execute(batch, now_ns)
            except PenstockError as error:
                for request in batch:
                    self._fail(request, error, FailureReason.OTHER)
            except Exception:
                log.exception("a batch could not be sent to its worker")
                for request in batch:
                    self._fail(request, InternalError("batch not sent"), FailureReason.OTHER)
        self._count_waiting()

    def _free_instance(self) -> Instance | None:
        """An idle instance, or else one with a free slab."""
        spare = None
        for instance in self._instances:
            if instance.idle and instance.can_take:
                return instance
            if spare is None and instance.can_take:
                spare = instance
        return spare

    def _wait_until_due(self, now_us: int, idle: bool) -> None:
        due_us = self._batcher.next_due_us()
        if due_us is None or not idle:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0, due_us - now_us) / 1e6, self._schedule)

    def _count_waiting(self) -> None:
        self._statistics.pending = self._batcher.requests
        self._statistics.queued_bytes = self._batcher.nbytes

    # ── worker → answers ────────────────────────────────────────────────────────────────────────────────────────────

    def on_done(self, instance: Instance, batch: RunningBatch, done: Done) -> None:
        """A batch is answered. The worker gets its next one before this one's responses are encoded."""
        if self._batcher.requests:
            self._dispatch()
        queue_ns: list[int] = []
        total_ns: list[int] = []
        rows = 0
        started_ns, now_ns = batch.started_ns, time.monotonic_ns()
        answers = scatter(instance.slab_of(batch), done, batch.requests)
        for request, outputs in zip(batch.requests, answers, strict=True):
            rows += request.rows
            answer = _encoded(request, outputs)
            if isinstance(answer, bytes):
                self._answer(request, answer)
                queue_ns.append(started_ns - request.arrived_ns)
                total_ns.append(now_ns - request.arrived_ns)
            else:
                self._fail(request, answer, FailureReason.BACKEND)
        instance.release(batch)
        self._statistics.record_batch(
            time.time_ns() // 1_000_000,
            rows,
            queue_ns,
            total_ns,
            done.input_ns,
            done.infer_ns,
            done.output_ns,
        )
        self._after_batch()

    def on_failed(self, instance: Instance, batch: RunningBatch, failed: BatchFailed) -> None:
        """The model failed as a whole."""
        instance.release(batch)
        for request in batch.requests:
            self._fail(request, ModelFailed(failed.reason), FailureReason.BACKEND)
        self._after_batch()

    def on_exit(self, instance: Instance, reason: str) -> None:
        """A worker ended. Its requests run again, each alone, and another worker takes its place."""
        index = self._instances.pop(instance, None)
        if index is None:
            return
        self._statistics.ready = bool(self._instances)
        self.last_crash = f"a worker ended: {reason}"
        log.error(
            "model %s version %s: %s",
            self._statistics.model,
            self._statistics.version,
            self.last_crash,
        )
        if self._loop.time() - self._started_at.pop(instance) > STABLE_S:
            self._crashes[index] = 0
        self._restart(index)
        for position, batch in enumerate(instance.running.values()):
            # a worker runs its batches in order: only the first one can have killed it
            self._repeat(batch.requests, reason, begun=position == 0)
        self._on_change()
        self._after_batch()

    def _repeat(self, requests: Sequence[PendingRequest], reason: str, *, begun: bool) -> None:
        for request in requests:
            request.attempts += begun
            if request.attempts >= MAX_ATTEMPTS:
                error = WorkerCrashed(
                    f"the worker process ended while it ran this request: {reason}"
                )
                self._fail(request, error, FailureReason.BACKEND)
                continue
            # alone from now on: if it is the one that kills, it takes no others with it
            request.shape_key = request
            try:
                self._batcher.add(request, request.arrived_ns // 1000)
            except PenstockError as error:
                self._fail(request, error, FailureReason.REJECTED)

    def _restart(self, index: int) -> None:
        self._crashes.setdefault(index, 0)
        task = self._loop.create_task(self._restart_until_loaded(index))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _restart_until_loaded(self, index: int) -> None:
        while True:
            crashes = self._crashes[index] = self._crashes.get(index, 0) + 1
            if crashes > 1:
                await asyncio.sleep(min(FIRST_BACKOFF_S * 2.0 ** (crashes - 2), LAST_BACKOFF_S))
            self._statistics.worker_restarts += 1
            try:
                instance = await self._start(index)
            except (PenstockError, OSError) as error:
                self.last_crash = str(error)
                log.error("model %s can't be started anew: %s", self._statistics.model, error)  # noqa: TRY400
                self._failed_starts.add(index)
                if not self.accepts:
                    self._refuse_waiting(error)
                    self._on_change()
                continue
            self._failed_starts.discard(index)
            self.add(instance, index)
            self._on_change()
            return

    def _refuse_waiting(self, reason: Exception) -> None:
        """No worker comes: nobody shall wait for one."""
        for request in self._batcher.drain():
            self._fail(
                request, Unavailable(f"no worker can be started: {reason}"), FailureReason.OTHER
            )
        self._count_waiting()
        self._after_batch()

    def _after_batch(self) -> None:
        if self._batcher.requests:
            self._schedule()
        elif self._drained is not None and self._empty and not self._drained.done():
            self._drained.set_result(None)

    @property
    def _empty(self) -> bool:
        return not self._batcher.requests and all(i.idle for i in self._instances)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, request: PendingRequest, response: Answer) -> None:
        if self._in_order is not None:
            for ready, answer in self._in_order.complete(request, response):
                ready.finish(answer)
        else:
            request.finish(response)

    def _fail(self, request: PendingRequest, error: PenstockError, reason: FailureReason) -> None:
        self._fail_count(reason, request)
        self._answer(request, error)

    def _fail_batch(self, batch: RunningBatch, error: PenstockError) -> None:
        for request in batch.requests:
            self._fail(request, error, FailureReason.OTHER)

    def _fail_count(self, reason: FailureReason, request: PendingRequest) -> None:
        self._statistics.record_failure(reason, time.monotonic_ns() - request.arrived_ns)


def _encoded(request: PendingRequest, outputs: list[OutputTensor] | PenstockError) -> Answer:
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
