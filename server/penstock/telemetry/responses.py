"""What became of the responses of decoupled models, by their place in the stream: the statistics' `response_stats`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAX_INDEX: Final = 1023
"""Responses from the next one on are not counted: streams may be without end, and the table should not."""


@dataclass(slots=True)
class Durations:
    """How many there were, and how long they took together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """One more."""
        self.count += 1
        self.ns += ns

    def to_json(self) -> dict[str, int]:
        """As the protocol has it."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class ResponseTimes:
    """All responses with one index."""

    compute_infer: Durations = field(default_factory=Durations)
    compute_output: Durations = field(default_factory=Durations)
    success: Durations = field(default_factory=Durations)
    fail: Durations = field(default_factory=Durations)
    empty_response: Durations = field(default_factory=Durations)
    cancel: Durations = field(default_factory=Durations)

    def to_json(self) -> dict[str, dict[str, int]]:
        """As the protocol has it."""
        return {name: getattr(self, name).to_json() for name in ResponseTimes.__slots__}


class Responses:
    """Counts responses by index, 0 the first of its request. Durations are the model's: from the response before it, or
    the start of the execution, to this one."""

    def __init__(self) -> None:
        self._times: dict[int, ResponseTimes] = {}

    def success(self, index: int, infer_ns: int, output_ns: int) -> None:
        """A response with outputs. `output_ns`: what it took to write them."""
        if (times := self._of(index)) is not None:
            times.compute_infer.add(infer_ns)
            times.compute_output.add(output_ns)
            times.success.add(infer_ns + output_ns)

    def fail(self, index: int, infer_ns: int, output_ns: int) -> None:
        """An error as response."""
        if (times := self._of(index)) is not None:
            times.compute_infer.add(infer_ns)
            times.compute_output.add(output_ns)
            times.fail.add(infer_ns + output_ns)

    def empty(self, index: int, infer_ns: int) -> None:
        """A response that only says that there are no more."""
        if (times := self._of(index)) is not None:
            times.empty_response.add(infer_ns)

    def cancel(self, index: int, infer_ns: int) -> None:
        """A response that nobody waited for any more."""
        if (times := self._of(index)) is not None:
            times.cancel.add(infer_ns)

    def to_json(self) -> dict[str, Any]:
        """Index → its times."""
        return {str(index): self._times[index].to_json() for index in sorted(self._times)}

    def _of(self, index: int) -> ResponseTimes | None:
        times = self._times.get(index)
        if times is None and index <= MAX_INDEX:
            times = self._times[index] = ResponseTimes()
        return times
