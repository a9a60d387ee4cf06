"""For which requests of its batch a model asks another one: for those whose inputs its code has read before it asks.

Neither Triton's API nor ours says for which it is, and tenants, deadlines and priorities differ within a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import NamedTuple


class _Reading(NamedTuple):
    """Which requests a model's code has read last, newest first."""

    batch: int
    places: Sequence[int]
    before: _Reading | None
    asked: bool
    """Another model was asked since: what is read from now on is for the next time."""


_reading: ContextVar[_Reading | None] = ContextVar("reading", default=None)
"""Of this thread or task."""


def begin(batch: int, count: int) -> None:
    """The model gets a batch: while it has read nothing, what it asks is for all of them."""
    _reading.set(_Reading(batch, range(count), None, asked=True))


def note(batch: int, place: int) -> None:
    """The model reads the inputs of a request."""
    last = _reading.get()
    before = None if last is None or last.asked else last
    _reading.set(_Reading(batch, (place,), before, asked=False))


def asked_for() -> tuple[int, tuple[int, ...]]:
    """The batch, and the places of the requests in it; -1 where nothing was read."""
    last = _reading.get()
    if last is None:
        return -1, ()
    _reading.set(last._replace(asked=True))
    places: set[int] = set()
    reading: _Reading | None = last
    while reading is not None:
        if reading.batch == last.batch:
            places.update(reading.places)
        reading = reading.before
    return last.batch, tuple(sorted(places))
