"""An ensemble as a graph: steps that read and write named tensors, and which of them a request needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step. A tensor is named once, however many of its inputs it is."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """What has to happen for the outputs that are asked for."""

    wanted: tuple[str, ...]
    """Tensors."""
    steps: Mapping[int, Step]
    """Those that run, by their place in the ensemble; what nobody needs is not among their `writes`."""
    readers: Mapping[str, tuple[int, ...]]
    """Tensor → the steps that read it."""


class Graph:
    """All steps of an ensemble, of which no two write the same tensor. Without circles."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self._writer = {tensor: at for at, step in enumerate(steps) for tensor in step.writes}

    def course(self, wanted: Iterable[str]) -> Course:
        """The steps that have a part in some of these tensors."""
        wanted = tuple(wanted)
        needed = set(wanted)
        runs: set[int] = set()
        ways = list(wanted)
        while ways:
            at = self._writer.get(ways.pop())
            if at is None or at in runs:
                # an input, or known already
                continue
            runs.add(at)
            ways += self.steps[at].reads
            needed.update(self.steps[at].reads)
        steps = {
            at: Step(self.steps[at].reads, tuple([w for w in self.steps[at].writes if w in needed]))
            for at in sorted(runs)
        }
        readers: dict[str, tuple[int, ...]] = {}
        for at, step in steps.items():
            for tensor in step.reads:
                readers[tensor] = (*readers.get(tensor, ()), at)
        return Course(wanted, steps, readers)


def stuck(steps: Sequence[Step], given: Iterable[str]) -> list[int]:
    """Steps that never have all they read, for they wait for each other, or for a tensor that nobody writes."""
    known = set(given)
    left = dict(enumerate(steps))
    while True:
        due = [at for at, step in left.items() if known.issuperset(step.reads)]
        if not due:
            return list(left)
        for at in due:
            known.update(left.pop(at).writes)
