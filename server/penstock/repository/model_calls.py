"""What models ask of other models: requests, and whether those are ready, or shall be loaded or unloaded."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from penstock.errors import (
    Cancelled,
    InternalError,
    InvalidRequest,
    ModelFailed,
    PenstockError,
    Unavailable,
)
from penstock.repository.nested import NestedCalls
from penstock.repository.nested_call import NestedCall, Tensors, Terms
from penstock.repository.overrides import Override, check_given
from penstock.repository.served_model import ServedModel
from penstock.repository.unanswered import CLIENT_GONE
from penstock.types import OutputTensor, Parameter
from penstock.workers.gather import REQUEST_ERRORS
from penstock.workers.instance import Asked, Instance
from penstock.workers.message_parts import RequestError, ResponseTensor
from penstock.workers.open_request import RunningBatch, StreamingBatch
from penstock.workers.request import Part, PendingRequest
from penstock.workers.worker_commands import CallAnswered
from penstock.workers.worker_events import CallModel, CallTaken, CancelCall, ControlModel

log = logging.getLogger(__name__)


class Control(Protocol):
    """Loads and unloads models."""

    def check_control_allowed(self) -> None:
        """Raises Unavailable unless models may be loaded and unloaded by request."""
        ...

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether the model can take work now. Raises InvalidRequest on a version that is no number."""
        ...

    def served(self) -> Iterable[ServedModel]:
        """All loaded versions of all models."""
        ...

    async def load(self, name: str, override: Override | None = None) -> None:
        """Load a model, from what is given or from its files. Raises LoadFailed, InvalidRequest."""
        ...

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """Stop serving a model, with what it alone needs. Raises InvalidRequest when it is not known."""
        ...


class _Call:
    """What one worker asked, until it is answered: a nested request, and those that it is for."""

    nested: NestedCall

    def __init__(self, instance: Instance, number: int, parents: Sequence[PendingRequest]) -> None:
        self._instance = instance
        self._number = number
        self.parents = parents
        self._final = False
        self._untaken: deque[Callable[[], None]] = deque()

    def part(self, request: PendingRequest, part: Part) -> None:
        """As `Sink` says: one response of a decoupled model."""
        self._final = part.final
        self._untaken.append(part.taken)
        if isinstance(part.outputs, PenstockError):
            self._tell((), part.parameters, _refusal(part.outputs), final=part.final)
        else:
            self._tell(part.outputs or (), part.parameters, None, final=part.final)

    def taken(self) -> None:
        """The worker has taken a response more."""
        if self._untaken:
            self._untaken.popleft()()

    def answer(self, answer: Tensors | PenstockError) -> None:
        """The last word: of a decoupled model's request all is said already, if it ended well."""
        if isinstance(answer, PenstockError):
            self._tell((), {}, _refusal(answer), final=True)
            return
        if not self._final:
            self._tell(answer.outputs, answer.parameters, None, final=True)
        # what was told is encoded already
        answer.release()

    def _tell(
        self,
        outputs: Sequence[OutputTensor],
        parameters: Mapping[str, Parameter],
        error: RequestError | None,
        *,
        final: bool,
    ) -> None:
        tensors = tuple(
            [
                ResponseTensor(each.name, each.datatype, each.shape, memoryview(each.data))
                for each in outputs
            ]
        )
        told = CallAnswered(self._number, tensors, dict(parameters), error, final)
        self._instance.answer(told)


class ModelCalls:
    """Sends what workers ask for, and takes the answers back to them."""

    def __init__(self, nested: NestedCalls, control: Control) -> None:
        self._nested = nested
        self._control = control
        self._under_way: dict[tuple[Instance, int], _Call] = {}
        self._controlling: set[asyncio.Task[None]] = set()

    def hear(self, model: str, pool: object, instance: Instance, asked: Asked) -> None:
        """A worker of the model's pool says something."""
        match asked:
            case CallModel():
                self._call(pool, instance, asked)
            case CallTaken(call=number):
                if call := self._under_way.get((instance, number)):
                    call.taken()
            case CancelCall(call=number):
                if call := self._under_way.get((instance, number)):
                    call.nested.cancel()
            case ControlModel():
                task = asyncio.get_running_loop().create_task(
                    self._do(model, pool, instance, asked)
                )
                self._controlling.add(task)
                task.add_done_callback(self._controlling.discard)

    def abandoned(self, request: PendingRequest) -> None:
        """Nobody waits for the answer of this request any more: what was asked for it alone need not be answered."""
        for call in list(self._under_way.values()):
            if request in call.parents and all(parent.done for parent in call.parents):
                call.nested.cancel()

    def ended(self, instance: Instance) -> None:
        """The worker is gone, and what it asked for is for nobody."""
        for caller, number in list(self._under_way):
            if caller is instance:
                self._under_way.pop((caller, number)).nested.cancel()

    def _call(self, pool: object, instance: Instance, asked: CallModel) -> None:
        batch = instance.running.get(asked.batch) or instance.streaming.get(asked.batch)
        parents = [] if batch is None else [batch.requests[place] for place in asked.requests]
        call = _Call(instance, asked.call, parents)
        key = instance, asked.call

        def answered(answer: Tensors | PenstockError) -> None:
            self._under_way.pop(key, None)
            call.answer(answer)

        if batch is not None and _is_for_nobody(batch, asked.requests):
            call.answer(Cancelled(CLIENT_GONE))
            return
        self._under_way[key] = call
        try:
            call.nested = self._nested.submit(
                asked.model,
                asked.version,
                [OutputTensor(t.name, t.datatype, t.shape, t.data) for t in asked.inputs],
                asked.outputs,
                terms_of_all(parents, pool),
                answered,
                asked.id,
                _with_priority(asked.parameters, parents),
                call if asked.decoupled else None,
            )
        except PenstockError as error:
            answered(error)
        except Exception:
            # else the model would wait for ever
            log.exception("a request of a model to model %s could not be sent", asked.model)
            answered(InternalError("not sent"))

    async def _do(self, caller: str, pool: object, instance: Instance, asked: ControlModel) -> None:
        error: PenstockError | None = None
        try:
            await self._control_model(caller, pool, asked)
        except PenstockError as refused:
            error = refused
        except Exception:
            log.exception("%s of model %s failed", asked.action, asked.model)
            error = InternalError("not done")
        refusal = None if error is None else _refusal(error)
        instance.answer(CallAnswered(asked.call, (), {}, refusal, final=True))

    async def _control_model(self, caller: str, pool: object, asked: ControlModel) -> None:
        if asked.action == "ready":
            if not self._control.is_ready(asked.model, asked.version):
                raise Unavailable(f"model '{asked.model}' is not ready")
            return
        self._control.check_control_allowed()
        if asked.model == caller:
            raise InvalidRequest(
                f"model '{caller}' can't {asked.action} itself: it would wait for its own request to end"
            )
        # those that are served go only when they have answered what is there, the caller's request maybe too
        pools = [model.pool for model in self._control.served() if model.name == asked.model]
        with self._nested.waiting(pool, pools, asked.model):
            if asked.action == "load":
                await self._control.load(asked.model, _override(asked))
            else:
                await self._control.unload(asked.model, dependents=asked.unload_dependents)


def terms_of_all(parents: Sequence[PendingRequest], pool: object) -> Terms:
    """The terms of a request that an instance of the pool sends to answer the parents: as urgent as any of them, and of
    use for as long as one of them is."""
    if not parents:
        return Terms(holder=pool)
    latest = max(parents, key=lambda parent: parent.ends_us)
    above = max(0 if parent.caller is None else parent.caller.depth for parent in parents)
    return Terms(
        parents[0].tenant,
        latest.ends_us,
        latest.deadline_is_clients,
        above + 1,
        next((parent.trace for parent in parents if parent.trace is not None), None),
        pool,
    )


def _is_for_nobody(batch: RunningBatch, places: Sequence[int]) -> bool:
    """Whether nobody waits for the answers of these requests any more. What a decoupled model asks after its own final
    response it wants to know itself."""
    if isinstance(batch, StreamingBatch) and any(batch.opened[place].ended for place in places):
        return False
    return bool(places) and all(batch.requests[place].done for place in places)


def _with_priority(
    parameters: Mapping[str, Parameter], parents: Sequence[PendingRequest]
) -> Mapping[str, Parameter]:
    """The parameters, with the priority of the most urgent parent where the model says none."""
    if "priority" in parameters:
        return parameters
    given = [parent.plan.parameters.get("priority") for parent in parents]
    levels = [level for level in given if isinstance(level, int) and level > 0]
    return {**parameters, "priority": min(levels)} if levels else parameters


def _override(asked: ControlModel) -> Override | None:
    if not asked.config and not asked.files:
        return None
    check_given(asked.model, asked.config or None, asked.files)
    return Override(asked.config, asked.files)


def _refusal(error: PenstockError) -> RequestError:
    # what a bug of ours says is not for models either
    text = "internal error" if isinstance(error, InternalError) else str(error)
    kinds = (each.__name__ for each in type(error).__mro__ if each.__name__ in REQUEST_ERRORS)
    return RequestError(0, text, next(kinds, ModelFailed.__name__))
