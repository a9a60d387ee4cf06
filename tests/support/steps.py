"""Requests of sequences for the scheduler's tests, and a short way to say what they are."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

from penstock.scheduling.sequence_queue import SequenceQueue
from penstock.types import SequenceId, SequenceTerms, Step


@dataclass(eq=False, slots=True)
class Part:
    """A request of a sequence."""

    sequence: SequenceTerms
    name: str = ""
    shape_key: Hashable = "a"
    rows: int = 1
    nbytes: int = 10
    tenant: str = "default"
    priority: float = 1
    deadline_us: float = inf
    deadline_is_clients: bool = True
    queue_timeout_us: float | None = None
    arrived_ns: int = 0
    number: int = 0
    done: bool = False
    step: Step = field(default_factory=lambda: Step(-1, False, False, 0))

    def __repr__(self) -> str:
        return self.name


def part(name: str, **fields: object) -> Part:
    """`7<`: the sequence 7 begins. `7>`: it ends. `7<>`: both. `7`: it goes on. What is after a colon: a name."""
    flags = name.partition(":")[0]
    digits = flags.strip("<>")
    sequence_id: SequenceId = int(digits) if digits.isdigit() else digits
    return Part(SequenceTerms(sequence_id, "<" in flags, ">" in flags), name, **fields)  # type: ignore[arg-type]


def names(parts: list[Part]) -> list[str]:
    """What they are called."""
    return [each.name for each in parts]


def slots(parts: list[Part]) -> list[int]:
    """The slots that they ran in."""
    return [each.step.slot for each in parts]


def submit(queue: SequenceQueue[Part], *requests: str | Part, **fields: object) -> list[Part]:
    """Check and add each of them."""
    parts = [part(each, **fields) if isinstance(each, str) else each for each in requests]
    for each in parts:
        queue.check_sequence(each)
        queue.add(each, queue.now_us)
    return parts
