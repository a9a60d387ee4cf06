"""Answers the requests of an ensemble by sending requests to the models of its steps. It has no worker of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    ModelFailed,
    NotFound,
    PenstockError,
    QueueFull,
    Unavailable,
)
from penstock.model_config import ConfigDict
from penstock.repository.ensemble_call import EnsembleCall, Holdings
from penstock.repository.ensemble_plan import EnsemblePlan, step_versions
from penstock.repository.nested import Models, NestedCalls
from penstock.repository.served_model import ServedModel
from penstock.repository.unanswered import CLIENT_GONE, UNLOADED
from penstock.scheduling.refusals import Refusal
from penstock.telemetry.statistics import FailureReason, ModelStatistics
from penstock.workers.request import Answer, PendingRequest


class StepModels(Models, Protocol):
    """Where the models of the steps are."""

    def find(self, name: str, version: str = "") -> ServedModel:
        """As `get`; what is not there yet will not be there when the server has started."""
        ...

    def why_not(self, name: str) -> str:
        """Why the model is not served, for a message."""
        ...


@dataclass(frozen=True, slots=True)
class EnsemblePolicy:
    """Bounds on what is under way."""

    max_requests: int
    max_bytes: int


class EnsemblePool:
    """Owns the requests of an ensemble version that are under way. All of it runs on the gateway's event loop."""

    def __init__(
        self,
        config: ConfigDict,
        policy: EnsemblePolicy,
        statistics: ModelStatistics,
        models: StepModels,
        calls: NestedCalls,
    ) -> None:
        """`config` is complete. What is wrong with the steps is `problem`."""
        self._config = config
        self._policy = policy
        self._statistics = statistics
        self._models = models
        self._nested = calls
        self._steps = tuple(step_versions(config))
        self._own_labels: Mapping[str, Sequence[str]] = {}
        self.labels: dict[str, Sequence[str]] = {}
        """Output → class names: the ensemble's own, else those of the model that gives it."""
        self._calls: dict[PendingRequest, EnsembleCall] = {}
        self._holdings = Holdings()
        self._refused = {Refusal.QUEUE_FULL: 0}
        statistics.refused = self._refused
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        self._plan: EnsemblePlan | None = None
        self._step_models: Sequence[ServedModel] = ()
        """Those that the plan was made for."""
        self.problem = ""
        """Why it can't run any request before its steps' models change; empty: it can."""
        self.recheck()

    def set_labels(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Those of the ensemble's own label files."""
        self._own_labels = labels
        self._take_labels()

    # ── its steps ───────────────────────────────────────────────────────────────────────────────────────────────────

    def recheck(self) -> bool:
        """Models have changed: look whether the ensemble still fits its steps. Whether it has another problem now."""
        before = self.problem
        try:
            models = [self._step_model(*step) for step in self._steps]
            if self._plan is None or not _same(self._step_models, models):
                self._plan = EnsemblePlan(self._config, models)
                self._step_models = models
                self._take_labels()
            self.problem = ""
        except PenstockError as error:
            self._plan = None
            self.problem = str(error)
        self._statistics.ready = not self.problem and not self._closed
        return self.problem != before

    def _step_model(self, step: str, name: str, version: str) -> ServedModel:
        try:
            model = self._models.find(name, version)
        except (NotFound, Unavailable) as error:
            why = self._models.why_not(name)
            raise Unavailable(f"{step}: {error}{f': {why}' if why else ''}") from error
        if model.pool.problem:
            raise Unavailable(f"{step}: {model.pool.problem}")
        return model

    def _take_labels(self) -> None:
        steps = {} if self._plan is None else self._plan.labels()
        self.labels.clear()
        self.labels.update({**steps, **self._own_labels})

    # ── as any pool ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> bool:
        """All its steps are."""
        return self._plan is not None and all(model.ready for model in self._step_models)

    @property
    def accepts(self) -> bool:
        """All its steps do."""
        return self._plan is not None and all(model.accepts for model in self._step_models)

    @property
    def last_crash(self) -> str:
        """Why it is not ready."""
        if self._plan is None:
            return self.problem
        names = [name for name, _, _ in self._steps]
        for name, model in zip(names, self._step_models, strict=True):
            if not model.ready:
                return f"{name}: {model.pool.last_crash}"
        return ""

    @property
    def instances(self) -> Sequence[object]:
        """None."""
        return ()

    def submit(self, request: PendingRequest) -> None:
        """Begin a request, which will get its answer. Raises what its first steps raise, QueueFull, Unavailable."""
        try:
            plan = self._check(request)
            call = EnsembleCall(
                self._statistics.model, plan, self._nested, self._holdings, request, self._ended
            )
            call.start()
        except PenstockError as error:
            self._count_failure(request, error)
            raise
        self._calls[request] = call
        self._holdings.nbytes += request.nbytes

    def submit_at_once(self, request: PendingRequest) -> None:
        """As any other: it waits for no instance, and its steps are looked at one by one."""
        self.submit(request)

    def cancel(self, request: PendingRequest) -> None:
        """Nobody waits for its answer any more: its steps that are under way are cancelled."""
        call = self._calls.get(request)
        if call is not None:
            call.fail(Cancelled(CLIENT_GONE))

    def explain(self) -> dict[str, Any]:
        """Its steps, and what is under way."""
        told: dict[str, Any] = {
            "under_way": {
                "requests": len(self._calls),
                "bytes": self._holdings.nbytes,
                "max_requests": self._policy.max_requests,
                "max_bytes": self._policy.max_bytes,
            },
            "refused": {reason.value: count for reason, count in self._refused.items()},
            "steps": self._explain_steps(),
        }
        return {**told, "problem": self.problem} if self.problem else told

    def tell_logging(self) -> None:
        """It has no worker to tell."""

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, and wait up to `grace_s` for those that are here."""
        self._closed = True
        self._statistics.ready = False
        if self._calls:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=grace_s)
        for call in list(self._calls.values()):
            call.fail(Unavailable(UNLOADED))

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, request: PendingRequest) -> EnsemblePlan:
        name = self._statistics.model
        if self._closed:
            raise Unavailable(f"model '{name}' is being unloaded")
        if self._plan is None:
            raise Unavailable(f"ensemble '{name}' can't run: {self.problem}")
        requests, nbytes, policy = len(self._calls), self._holdings.nbytes, self._policy
        if requests >= policy.max_requests:
            self._refused[Refusal.QUEUE_FULL] += 1
            raise QueueFull(
                f"Exceeds maximum queue size: ensemble '{name}' has {requests} requests under way"
            )
        if nbytes + request.nbytes > policy.max_bytes:
            self._refused[Refusal.QUEUE_FULL] += 1
            raise QueueFull(
                f"Exceeds maximum queue size: ensemble '{name}' has {nbytes} bytes under way, "
                f"{request.nbytes} more are over the bound of {policy.max_bytes}"
            )
        return self._plan

    def _ended(self, call: EnsembleCall, answer: Answer) -> None:
        request = call.request
        del self._calls[request]
        self._holdings.nbytes -= request.nbytes
        if isinstance(answer, PenstockError):
            self._count_failure(request, answer)
        else:
            times, took_ns = call.times, time.monotonic_ns() - request.arrived_ns
            self._statistics.record_batch(
                time.time_ns() // 1_000_000,
                request.rows,
                [0],
                [took_ns],
                times.input_ns,
                times.infer_ns,
                times.output_ns,
            )
        request.finish(answer)
        if self._drained is not None and not self._calls and not self._drained.done():
            self._drained.set_result(None)

    def _count_failure(self, request: PendingRequest, error: PenstockError) -> None:
        took_ns = time.monotonic_ns() - request.arrived_ns
        self._statistics.record_failure(_reason(error), took_ns)

    def _explain_steps(self) -> list[dict[str, Any]]:
        models = [None] * len(self._steps) if self._plan is None else self._step_models
        return [
            {
                "step": at,
                "model": name,
                "version": "" if model is None else str(model.version),
                "ready": model is not None and model.ready,
            }
            for at, ((_, name, _), model) in enumerate(zip(self._steps, models, strict=True))
        ]


def _same(models: Sequence[ServedModel], others: Sequence[ServedModel]) -> bool:
    return all(one is other for one, other in zip(models, others, strict=True))


def _reason(error: PenstockError) -> FailureReason:
    if isinstance(error, Cancelled):
        return FailureReason.CANCELED
    if isinstance(error, QueueFull | DeadlineExceeded):
        return FailureReason.REJECTED
    return FailureReason.BACKEND if isinstance(error, ModelFailed) else FailureReason.OTHER
