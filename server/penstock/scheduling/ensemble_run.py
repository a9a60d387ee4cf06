"""One request on its way through an ensemble: which steps are due, and how long each tensor is needed. No clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from penstock.scheduling.ensemble_graph import Course

Held = TypeVar("Held")


class EnsembleRun(Generic[Held]):
    """Keeps each tensor until the last step that reads it is over, and those that are wanted until `end`. A tensor may
    be absent (None): an input that was not given, an output that a model left out."""

    def __init__(self, course: Course, free: Callable[[Held], None]) -> None:
        """`free` is called once for each tensor that came, when nobody needs it any more."""
        self._course = course
        self._free = free
        self._tensors: dict[str, Held | None] = {}
        self._missing = {at: len(step.reads) for at, step in course.steps.items()}
        """Tensors that a step which is not due yet waits for."""
        self._needs: dict[str, int] = {
            tensor: len(readers) for tensor, readers in course.readers.items()
        }
        for tensor in course.wanted:
            self._needs[tensor] = self._needs.get(tensor, 0) + 1
        self._open = set(course.steps)
        """Steps that are not over."""
        self._ended = False

    @property
    def finished(self) -> bool:
        """All that is wanted is there."""
        return not self._open and not self._ended

    def begin(self, given: Mapping[str, Held | None]) -> list[int]:
        """The request's own tensors; the steps that are due first."""
        due = [at for at, missing in self._missing.items() if not missing]
        return due + self._add(given)

    def inputs(self, at: int) -> Mapping[str, Held | None]:
        """What a step that is due, or under way, reads."""
        return {tensor: self._tensors[tensor] for tensor in self._course.steps[at].reads}

    def writes(self, at: int) -> Sequence[str]:
        """Those of a step's tensors that somebody needs."""
        return self._course.steps[at].writes

    def over(self, at: int, written: Mapping[str, Held]) -> list[int]:
        """A step that was due is over, and these are the tensors that it wrote; the steps that are due by that."""
        if self._ended:
            for held in written.values():
                self._free(held)
            return []
        step = self._course.steps[at]
        self._open.discard(at)
        due = self._add(
            {
                **written,
                **{tensor: None for tensor in step.writes if tensor not in written},
            }
        )
        for tensor in step.reads:
            self._needs[tensor] -= 1
            if not self._needs[tensor]:
                self._drop(tensor)
        return due

    def outputs(self) -> Mapping[str, Held | None]:
        """What is wanted, once it is finished."""
        return {tensor: self._tensors[tensor] for tensor in self._course.wanted}

    def end(self) -> None:
        """It was answered, or failed: nothing is needed any more."""
        self._ended = True
        for tensor in list(self._tensors):
            self._drop(tensor)

    def _add(self, tensors: Mapping[str, Held | None]) -> list[int]:
        due = []
        for tensor, held in tensors.items():
            if not self._needs.get(tensor):
                if held is not None:
                    self._free(held)
                continue
            self._tensors[tensor] = held
            for at in self._course.readers.get(tensor, ()):
                self._missing[at] -= 1
                if not self._missing[at]:
                    due.append(at)
        return due

    def _drop(self, tensor: str) -> None:
        held = self._tensors.pop(tensor)
        if held is not None:
            self._free(held)
