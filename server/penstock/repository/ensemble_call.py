"""One request of an ensemble under way: an ordinary request to the model of each step, as soon as it is due."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.errors import InvalidRequest, ModelFailed, PenstockError
from penstock.repository.answers import encoded
from penstock.repository.ensemble_plan import EnsemblePlan, PlannedStep, fit
from penstock.repository.nested import NestedCalls
from penstock.repository.nested_call import NestedCall, Tensors, Times, terms_of
from penstock.scheduling.ensemble_run import EnsembleRun
from penstock.types import OutputTensor
from penstock.workers.client_regions import RegionInput
from penstock.workers.request import Answer, PendingRequest


@dataclass(slots=True)
class Shared:
    """A step's answer, which is released when none of its tensors is needed any more."""

    answer: Tensors
    holders: int

    def release(self) -> None:
        """One of them is not."""
        self.holders -= 1
        if not self.holders:
            self.answer.release()


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of the request."""

    tensor: OutputTensor
    rows: int
    """Of its batch dimension; 0: it has none."""
    source: Shared | None
    """None: it came with the request."""

    @property
    def nbytes(self) -> int:
        """What it holds beside the request."""
        return 0 if self.source is None else len(self.tensor.data)


@dataclass(slots=True)
class Holdings:
    """What all requests of an ensemble keep together: their inputs, and what steps have given."""

    nbytes: int = 0

    def free(self, held: Held) -> None:
        """Nobody needs the tensor any more."""
        self.nbytes -= held.nbytes
        if held.source is not None:
            held.source.release()


OnEnd = Callable[["EnsembleCall", Answer], None]
"""Hands the answer out; must not raise."""


class EnsembleCall:
    """Owns the tensors of its request. Everything happens on the event loop, in calls of `start`, `fail`, and of the
    steps' answers."""

    __slots__ = (
        "_calls",
        "_holdings",
        "_name",
        "_on_end",
        "_plan",
        "_run",
        "_under_way",
        "ended",
        "request",
        "times",
    )

    def __init__(
        self,
        name: str,
        plan: EnsemblePlan,
        calls: NestedCalls,
        holdings: Holdings,
        request: PendingRequest,
        on_end: OnEnd,
    ) -> None:
        self._name = name
        self._holdings = holdings
        self._plan = plan
        self._calls = calls
        self._on_end = on_end
        self.request = request
        self.times = Times()
        """All steps together."""
        self._run = EnsembleRun[Held](plan.course(request.plan.output_names), holdings.free)
        self._under_way: dict[int, NestedCall] = {}
        self.ended = False

    def start(self) -> None:
        """Send what is due at once. Raises PenstockError where that fails; nobody is told then."""
        self._send(self._run.begin(self._given()))

    def fail(self, error: PenstockError) -> None:
        """Answer with an error. What is under way is cancelled, as nobody needs it any more."""
        if not self.ended:
            self._end()
            self._on_end(self, error)

    def release(self) -> None:
        """The outputs are not needed any more."""
        self._run.end()

    # ── out to the steps ────────────────────────────────────────────────────────────────────────────────────────────

    def _given(self) -> Mapping[str, Held | None]:
        """The request's own inputs; those that are optional and were left out are absent."""
        plan, request = self._plan, self.request
        given: dict[str, Held | None] = dict.fromkeys(plan.inputs)
        rows = request.rows if plan.batched else 0
        header = request.plan
        for name, datatype, shape, buffer in zip(
            header.input_names, header.datatypes, header.shapes, request.buffers, strict=True
        ):
            assert not isinstance(buffer, RegionInput), "they are read before, for who is no Pool"
            reshape = plan.reshapes.get(name)
            if reshape is not None:
                shape = reshape(shape, plan.batched)
            given[name] = Held(OutputTensor(name, datatype, shape, buffer), rows, None)
        return given

    def _send(self, due: Iterable[int]) -> None:
        """Raises PenstockError that names the step; the call has ended then."""
        for at in due:
            step = self._plan.steps[at]
            try:
                self._under_way[at] = self._submit(at, step)
            except PenstockError as error:
                self._end()
                raise self._in_step(step, error) from error

    def _submit(self, at: int, step: PlannedStep) -> NestedCall:
        request = self.request
        wanted = self._run.writes(at)
        return self._calls.submit(
            step.model,
            step.version,
            self._inputs(at, step),
            tuple([step.outputs[tensor] for tensor in wanted]),
            terms_of(request),
            lambda answer: self._answered(at, answer),
            request.id,
            request.plan.parameters,
        )

    def _inputs(self, at: int, step: PlannedStep) -> Sequence[OutputTensor]:
        """As the step's model calls and sees them. Raises InvalidRequest where one is missing that it needs."""
        tensors = self._run.inputs(at)
        inputs = []
        for name, (tensor, place) in step.inputs.items():
            held = tensors[tensor]
            if held is not None:
                shape = place.shape(held.tensor.shape, held.rows)
                data = held.tensor.data
                inputs.append(OutputTensor(name, held.tensor.datatype, shape, data))
            elif not place.optional:
                raise InvalidRequest(
                    f"its input '{name}' is missing: nothing gave tensor '{tensor}'"
                )
        return inputs

    # ── back from them ──────────────────────────────────────────────────────────────────────────────────────────────

    def _answered(self, at: int, answer: Tensors | PenstockError) -> None:
        if self.ended:
            if isinstance(answer, Tensors):
                answer.release()
            return
        del self._under_way[at]
        step = self._plan.steps[at]
        if isinstance(answer, PenstockError):
            self.fail(self._in_step(step, answer))
            return
        self.times.add(answer.times)
        try:
            self._send(self._run.over(at, self._kept(at, step, answer)))
        except PenstockError as error:
            self._on_end(self, error)
            return
        if self._run.finished:
            self._finish()

    def _kept(self, at: int, step: PlannedStep, answer: Tensors) -> Mapping[str, Held]:
        """Those of a step's outputs that somebody needs."""
        outputs = {output.name: output for output in answer.outputs}
        wanted = [t for t in self._run.writes(at) if step.outputs[t] in outputs]
        if not wanted:
            answer.release()
        shared = Shared(answer, len(wanted))
        kept = {t: Held(outputs[step.outputs[t]], answer.rows, shared) for t in wanted}
        self._holdings.nbytes += sum(held.nbytes for held in kept.values())
        return kept

    def _finish(self) -> None:
        """Encode the response while its tensors are valid. A caller who is no client keeps them longer, if it likes."""
        request = self.request
        self.ended = True
        if request.caller is not None:
            request.caller.computed(self.times, self)
        answer = encoded(request, self._outputs())
        self._on_end(self, answer)
        if request.caller is None:
            self.release()

    def _outputs(self) -> list[OutputTensor] | PenstockError:
        """As the client sees them. Outputs that a step left out are left out, as those of any model."""
        plan = self._plan
        outputs = []
        for name, held in self._run.outputs().items():
            if held is None:
                continue
            place = plan.outputs[name]
            shape = place.shape(held.tensor.shape, held.rows)
            if not fit(place.full, shape):
                return ModelFailed(
                    f"in ensemble '{self._name}', output '{name}' has the shape {list(shape)}; expected"
                    f" {list(place.full)}"
                )
            reshape = plan.reshapes.get(name)
            if reshape is not None:
                shape = reshape(shape, plan.batched)
            outputs.append(OutputTensor(name, held.tensor.datatype, shape, held.tensor.data))
        return outputs

    def _end(self) -> None:
        self.ended = True
        under_way, self._under_way = self._under_way, {}
        # first, for its tensors are what those under way read, and a cancelled one reads no more
        for call in under_way.values():
            call.cancel()
        self._run.end()

    def _in_step(self, step: PlannedStep, error: PenstockError) -> PenstockError:
        """The same error, and where it was."""
        told = copy.copy(error)
        told.args = (f"in ensemble '{self._name}', {step.name}: {error}",)
        return told
