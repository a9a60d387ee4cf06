"""Instances that wait for other models: who may wait, so that there is never a circle in which all wait for each other.

A model that sends a request to another one holds an instance until it has the answer. Where all instances of A wait
for B and all of B for A, nobody would ever go on. So a request that closes a circle of waiting models may not queue: it
runs at once on an idle instance, or is refused. That is enough: were there a deadlock, the request that was sent last
of those that take part in it would have closed a circle, hence run at once, hence not wait.
"""

from __future__ import annotations

from collections import Counter


class Waits:
    """Which models hold instances that wait for which others, and how many. Models are any hashable objects."""

    def __init__(self) -> None:
        self._waiting: dict[object, Counter[object]] = {}

    def circular(self, holder: object, callee: object) -> bool:
        """Whether the callee, or a model that it waits for, waits for the holder: the holder must not queue there."""
        seen: set[object] = set()
        ahead = [callee]
        while ahead:
            model = ahead.pop()
            if model == holder:
                return True
            if model not in seen:
                seen.add(model)
                ahead += self._waiting.get(model, ())
        return False

    def begin(self, holder: object, callee: object) -> None:
        """An instance of the holder waits for the callee from now on."""
        self._waiting.setdefault(holder, Counter())[callee] += 1

    def end(self, holder: object, callee: object) -> None:
        """It doesn't any more."""
        waiting = self._waiting[holder]
        waiting[callee] -= 1
        if not waiting[callee]:
            del waiting[callee]
            if not waiting:
                del self._waiting[holder]

    def __len__(self) -> int:
        """How many models wait."""
        return len(self._waiting)
