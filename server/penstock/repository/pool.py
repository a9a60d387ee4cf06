"""The instances of one model version, and the way of its requests: queue → batch → worker → answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from penstock.errors import (
    Cancelled,
    InternalError,
    ModelFailed,
    PenstockError,
    Unavailable,
)
from penstock.repository.alarm import Alarm
from penstock.repository.answers import Answers
from penstock.repository.explanation import explain
from penstock.repository.hang_watch import HangWatch
from penstock.repository.model_pool import Calls, ModelPool
from penstock.repository.poison import Poison
from penstock.repository.pool_policy import PoolPolicy
from penstock.repository.restarts import Restarts, StartInstance
from penstock.repository.turns import Turns
from penstock.repository.unanswered import CLIENT_GONE, IN_A_CIRCLE, UNLOADED
from penstock.scheduling.scheduler import Scheduler
from penstock.telemetry.statistics import FailureReason, ModelStatistics
from penstock.workers.gather import InputsLost, scatter
from penstock.workers.instance import Asked, Instance
from penstock.workers.open_request import RunningBatch
from penstock.workers.request import PendingRequest
from penstock.workers.slab_set import Loans
from penstock.workers.worker_events import BatchFailed, Done, DoneWithParameters

log = logging.getLogger(__name__)


class Pool:
    """Owns a model version's queue and instances. All of it runs on the gateway's event loop."""

    def __init__(
        self,
        policy: PoolPolicy,
        statistics: ModelStatistics,
        start: StartInstance,
        on_change: Callable[[], None],
        turns: Turns | None = None,
        calls: Calls | None = None,
    ) -> None:
        """`turns`: of its instances, where a rate limiter gives them. `calls` answers what the models ask of others;
        None: nobody does."""
        self._policy = policy
        self._turns = turns
        if turns is not None:
            turns.wake = self._schedule
        self._statistics = statistics
        self._on_change = on_change
        self._calls = calls
        self._loop = asyncio.get_running_loop()
        self.scheduler = self._new_scheduler()
        statistics.refused = self.scheduler.refused
        statistics.worker_pids = lambda: [each.process.pid for each in self._instances]
        statistics.devices = lambda: sorted({each.device for each in self._instances})
        statistics.fallbacks = lambda: dict(
            [told for each in self._instances for told in each.fallbacks.items()]
        )
        self._batcher = self.scheduler.batcher
        statistics.delayed = lambda: self._batcher.delayed
        self._answers = Answers(
            self.scheduler, statistics, preserve_ordering=policy.preserve_ordering
        )
        self._loans = Loans(policy.scheduling.batch.max_queue_bytes)
        self._instances: dict[Instance, int] = {}
        self._restarts = Restarts(start, statistics, self._restarted, self._not_restarted)
        self._poison = Poison(self.scheduler, self._restarts, self._answers, policy.quarantine_us)
        self._dispatching = False
        self._wake = Alarm(self._loop, self._dispatch)
        self._expire = Alarm(self._loop, self._end_expired)
        self._hang_watch = HangWatch(
            self._loop,
            policy.execution_timeout_us,
            lambda: self._instances,
            self._busy_since_us,
            self._end_hung,
        )
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        self.last_crash = ""
        self.front: ModelPool = self
        """What the model's requests are submitted to, where that is something before this pool."""
        self.on_added: Callable[[Instance], None] = lambda _: None
        """Hears of each instance that takes part from now on."""

    @property
    def ready(self) -> bool:
        """Some instance can take work."""
        return bool(self._instances)

    @property
    def accepts(self) -> bool:
        """Requests may come: some instance can take them, or one that crashed should soon be back."""
        return bool(self._instances) or self._restarts.soon

    @property
    def problem(self) -> str:
        """None that another model has to do with."""
        return ""

    @property
    def statistics(self) -> ModelStatistics:
        """Of the model version."""
        return self._statistics

    @property
    def instances(self) -> Sequence[Instance]:
        """Those that are loaded."""
        return list(self._instances)

    def add(self, instance: Instance, index: int) -> None:
        """A loaded instance takes part from now on."""
        instance.listener = self
        instance.hear_metrics(self._statistics.custom.apply)
        self._instances[instance] = index
        self.scheduler.join(instance)
        if self._turns is not None:
            self._turns.join(instance, index)
        self.on_added(instance)
        self._restarts.started(index)
        self._statistics.ready = True
        if instance.process.exited.done():
            self.on_exit(instance, instance.process.exited.result())
        else:
            self._schedule()

    def tell_logging(self) -> None:
        """Have all workers log what the link says."""
        for instance in self._instances:
            instance.tell_logging()

    def submit(self, request: PendingRequest) -> None:
        """Queue a request, which will get its answer.

        Raises QueueFull, DeadlineExceeded, Unavailable, WorkerCrashed.
        """
        if self._closed:
            self._check_closing(request)
        now_us = request.arrived_ns / 1000
        try:
            self._poison.check(request, now_us)
            self.scheduler.submit(request, now_us, watched=request.shared is None)
        except PenstockError:
            self._answers.count_failure(request, FailureReason.REJECTED)
            raise
        self._answers.expect(request)
        if self._turns is not None:
            self._turns.expect(request)
        if request.deadline_us != inf and request.shared is None:
            self._expire.at(request.deadline_us, now_us)
        if self._batcher.times is not None:
            self._watch_expiry(now_us)
        self._schedule()

    def submit_at_once(self, request: PendingRequest) -> None:
        """Run a request on an idle instance, without queueing and whatever the order of answers is.

        Raises Unavailable where no instance is idle, WorkerCrashed.
        """
        if self._closed:
            self._check_closing(request)
        instance = next((each for each in self._instances if each.idle and each.can_take), None)
        now_ns = time.monotonic_ns()
        try:
            if instance is None:
                raise Unavailable(IN_A_CIRCLE.format(model=self._statistics.model))
            self._poison.check(request, now_ns / 1000)
        except PenstockError:
            self._answers.count_failure(request, FailureReason.REJECTED)
            raise
        request.at_once = True
        if self._turns is not None:
            self._turns.take_at_once(instance)
        self.scheduler.take_alone(instance, request, now_ns / 1000)
        if request.deadline_us != inf:
            self._expire.at(request.deadline_us, now_ns / 1000)
        self._execute(instance, [request], now_ns)

    def cancel(self, request: PendingRequest) -> None:
        """The client is gone: don't run the request if it still waits, and make no answer for it if it runs."""
        if not request.done:
            if not self.scheduler.withdraw(request):
                self._stop(request)
            self._answers.abandon(request, Cancelled(CLIENT_GONE), FailureReason.CANCELED)
            self.scheduler.answered(request, in_time=False)
            if self._calls is not None:
                self._calls.abandoned(request)
            self._count_waiting()
            self._after_batch()

    def withdraw(self, request: PendingRequest) -> bool:
        """Take a request out that still waits, as if it had never come; False when a worker has it."""
        if not self.scheduler.withdraw(request):
            return False
        request.done = True
        self._count_waiting()
        self._after_batch()
        return True

    def abandon(self, request: PendingRequest) -> None:
        """As `cancel`, for a request whose end is told and counted elsewhere."""
        if not self.scheduler.withdraw(request):
            self._stop(request)
        request.done = True
        if self._calls is not None:
            self._calls.abandoned(request)
        self._count_waiting()
        self._after_batch()

    def requeue(self, request: PendingRequest) -> None:
        """Queue a request that takes the place of one that was here: no bound refuses it."""
        now_us = time.monotonic_ns() / 1000
        self.scheduler.again(request, now_us)
        if self._turns is not None:
            self._turns.expect(request)
        if self._batcher.times is not None:
            self._watch_expiry(now_us)
        self._schedule()

    def explain(self) -> dict[str, Any]:
        """What the scheduler knows, has decided and does, for a person."""
        now_us = time.monotonic_ns() / 1000
        told = explain(self.scheduler, self._instances, self._poison.quarantine, now_us)
        if self._turns is not None:
            told["rate_limiter"] = self._turns.explain()
        return told

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, answer those that are here for up to `grace_s`, then end the instances."""
        self._closed = True
        if not self._empty:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=grace_s)
        self._restarts.close()
        for watch in (self._wake, self._expire, self._hang_watch):
            watch.cancel()
        self._give_up()
        instances, self._instances = list(self._instances), {}
        for instance in instances:
            for batch in instance.batches:
                for request in batch.requests:
                    self._answers.fail(request, self._unloaded(request), FailureReason.OTHER)
            self._forget_calls(instance)
            instance.close(grace_s=5)
        await asyncio.gather(*(instance.process.exited for instance in instances))
        if self._turns is not None:
            self._turns.close()

    def _stop(self, request: PendingRequest) -> None:
        """Tell the worker that has the request, if one has, that nobody waits for it."""
        for instance in self._instances:
            if instance.cancel(request):
                return

    def _new_scheduler(self) -> Scheduler[PendingRequest]:
        return Scheduler(self._statistics.model, self._policy.scheduling)

    def _check_closing(self, request: PendingRequest) -> None:
        """Raises Unavailable for a request that comes too late."""
        raise Unavailable(f"model '{self._statistics.model}' is being unloaded")

    def _unloaded(self, request: PendingRequest) -> Unavailable:
        """What those hear that are still here when the grace is over."""
        return Unavailable(UNLOADED)

    def _give_up(self) -> None:
        for request in self._batcher.drain():
            self._answers.fail(request, self._unloaded(request), FailureReason.OTHER)

    # ── queue → worker ──────────────────────────────────────────────────────────────────────────────────────────────

    def _schedule(self) -> None:
        """Dispatch at the end of this turn of the loop, so that all that came together goes together."""
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Give due batches to instances until there is no batch or no instance left."""
        self._dispatching = False
        while self._batcher.requests:
            now_ns = time.monotonic_ns()
            instance = self._next_instance(now_ns / 1000)
            if instance is None:
                break
            batch, late = self.scheduler.take(instance, now_ns / 1000)
            if self._turns is not None:
                self._turns.took(instance, batch)
            for request, error in late:
                self._answers.fail(request, error, FailureReason.REJECTED)
            if not batch:
                if self._turns is not None and instance.idle:
                    self._turns.withdraw()
                due_us = self.scheduler.next_due_us() if instance.idle else None
                if due_us is not None:
                    self._wake.at(due_us, now_ns / 1000)
                break
            self._execute(instance, batch, now_ns)
        if self._turns is not None and not self._batcher.requests:
            self._turns.withdraw()
        self._count_waiting()

    def _next_instance(self, now_us: float) -> Instance | None:
        """An idle instance, or else the one that will be so first, when it is nearly done and has a free slab."""
        first_us, first = inf, None
        for instance in self._instances:
            if not instance.can_take or (self._turns and not self._turns.may_take(instance)):
                continue
            if instance.idle:
                return instance
            ahead_us = self.scheduler.ahead_us(instance)
            if ahead_us < first_us:
                first_us, first = ahead_us, instance
        if first is None or first_us <= now_us:
            return first
        self._wake.at(first_us, now_us)
        return None

    def _execute(self, instance: Instance, batch: Sequence[PendingRequest], now_ns: int) -> None:
        errors: Mapping[PendingRequest, PenstockError]
        while batch:
            try:
                instance.execute(batch, now_ns)
            except InputsLost as gone:
                errors = gone.lost
            except PenstockError as refused:
                errors = dict.fromkeys(batch, refused)
            except Exception:
                log.exception("a batch could not be sent to its worker")
                errors = dict.fromkeys(batch, InternalError("batch not sent"))
            else:
                if self._policy.execution_timeout_us:
                    self._hang_watch.began(now_ns / 1000)
                return
            for request, error in errors.items():
                self._answers.fail(request, error, FailureReason.OTHER)
            batch = [request for request in batch if request not in errors]
        self.scheduler.not_run(instance)
        if self._turns is not None:
            self._turns.ended(instance, more=bool(self._batcher.requests))
        self._after_batch()

    def _count_waiting(self) -> None:
        self._statistics.pending = self._batcher.requests
        self._statistics.queued_bytes = self._batcher.nbytes

    # ── worker → answers ────────────────────────────────────────────────────────────────────────────────────────────

    def on_done(self, instance: Instance, batch: RunningBatch, done: Done) -> None:
        """A batch is answered. The worker gets its next one before this one's responses are encoded."""
        started_ns, now_ns = batch.started_ns, time.monotonic_ns()
        self._finished(instance, batch, now_ns)
        queue_ns: list[int] = []
        total_ns: list[int] = []
        rows = 0
        answers = scatter(instance.slab_of(batch), done, batch.requests)
        if isinstance(done, DoneWithParameters):
            for index, parameters in done.parameters:
                batch.requests[index].response_parameters = parameters
        for request, outputs in zip(batch.requests, answers, strict=True):
            rows += request.rows
            if request.done:
                # it expired, or its client left
                continue
            if request.trace is not None:
                request.trace.computed(started_ns, now_ns, done, outputs)
            if request.caller is not None:
                request.caller.computed(done, instance.lend(batch, outputs, self._loans))
            if self._answers.encode(request, outputs):
                queue_ns.append(started_ns - request.arrived_ns)
                total_ns.append(now_ns - request.arrived_ns)
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
        self._finished(instance, batch, time.monotonic_ns())
        for request in batch.requests:
            self._answers.fail(request, ModelFailed(failed.reason), FailureReason.BACKEND)
        self._after_batch()

    def on_call(self, instance: Instance, call: Asked) -> None:
        """The model asks something of another one."""
        if self._calls is not None:
            self._calls.hear(self._statistics.model, self.front, instance, call)

    def on_exit(self, instance: Instance, reason: str) -> None:
        """A worker ended. Its requests run again, and another worker takes its place."""
        self._lost(instance, reason, hung=False)

    def _finished(self, instance: Instance, batch: RunningBatch, now_ns: int) -> None:
        latencies_us: list[float] = []
        if self.scheduler.slo is not None:
            latencies_us = [(now_ns - r.arrived_ns) / 1000 for r in batch.requests if not r.done]
        decision = self.scheduler.finished(instance, latencies_us, now_ns / 1000)
        if decision is not None:
            self._statistics.slo = decision
        if self._turns is not None:
            self._turns.ended(instance, more=bool(self._batcher.requests))
        if self._batcher.requests:
            self._dispatch()

    def _after_batch(self) -> None:
        if self._batcher.requests:
            self._schedule()
        elif self._drained is not None and self._empty and not self._drained.done():
            self._drained.set_result(None)

    @property
    def _empty(self) -> bool:
        return not self._batcher.requests and not any(i.batches for i in self._instances)

    # ── workers that end, or should ─────────────────────────────────────────────────────────────────────────────────

    def _lost(self, instance: Instance, reason: str, *, hung: bool) -> None:
        index = self._instances.pop(instance, None)
        if index is None:
            return
        self.scheduler.leave(instance)
        if self._turns is not None:
            self._turns.leave(instance)
        self._statistics.ready = bool(self._instances)
        self.last_crash = f"a worker ended: {reason}"
        model, version = self._statistics.model, self._statistics.version
        log.error("model %s version %s: %s", model, version, self.last_crash)
        self._forget_calls(instance)
        self._restarts.crashed(index)
        self._recover(instance, reason, hung=hung)
        self._on_change()
        self._after_batch()

    def _forget_calls(self, instance: Instance) -> None:
        if self._calls is not None:
            self._calls.ended(instance)

    def _recover(self, instance: Instance, reason: str, *, hung: bool) -> None:
        """Queue anew what a worker had that has ended, but for what ended it."""
        # a worker runs its batches in order: only the first one can have killed it
        now_us = time.monotonic_ns() / 1000
        for position, batch in enumerate(instance.running.values()):
            requests: Sequence[PendingRequest] = [r for r in batch.requests if not r.done]
            if requests and position == 0:
                requests = self._poison.survivors(requests, reason, now_us, hung=hung)
            for request in requests:
                # an error of one may have cancelled others that were sent by the same caller
                if request.done:
                    continue
                if request.at_once:
                    ended = Unavailable(
                        f"the worker process ended while it ran this request: {reason}"
                    )
                    self._answers.fail(request, ended, FailureReason.BACKEND)
                else:
                    self.scheduler.again(request, now_us)

    def _end_hung(self, instance: Instance, reason: str) -> None:
        self._lost(instance, reason, hung=True)
        instance.close()

    def _busy_since_us(self, instance: Instance) -> float | None:
        """Since when it runs its present batch; None when it has none."""
        return self.scheduler.busy_since_us(instance)

    def _restarted(self, instance: Instance, index: int) -> None:
        self.add(instance, index)
        self._on_change()

    def _not_restarted(self, error: Exception) -> None:
        self.last_crash = str(error)
        if self.accepts:
            return
        # no worker comes: nobody shall wait for one
        for request in self._batcher.drain():
            reason = Unavailable(f"no worker can be started: {error}")
            self._answers.fail(request, reason, FailureReason.OTHER)
        self._count_waiting()
        self._after_batch()
        self._on_change()

    def _end_expired(self) -> None:
        now_us = time.monotonic_ns() / 1000
        for request, error in self.scheduler.expired(now_us):
            self._stop(request)
            self._answers.abandon(request, error, FailureReason.REJECTED)
        self._watch_expiry(now_us)
        self._count_waiting()
        self._after_batch()

    def _watch_expiry(self, now_us: float) -> None:
        next_us = self.scheduler.next_expiry_us
        if next_us is not None:
            self._expire.at(next_us, now_us)
