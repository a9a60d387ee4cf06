"""For which requests of its batch a model asks another one: for those whose inputs its code has read before it asks.

Neither Triton's API nor ours says for which it is, and tenants, deadlines and priorities differ within a batch.
"""

from __future__ import annotations

from contextvars import ContextVar

import msgspec


class _Reading(msgspec.Struct, frozen=True, gc=False):
    """Which requests of a batch a model's code has read. A Struct, for one is made for every request."""

    batch: int
    places: int
    """A bit for each: however often a thread reads, this does not grow."""
    asked: bool
    """Another model was asked since: what is read from now on is for the next time."""


_reading: ContextVar[_Reading | None] = ContextVar("reading", default=None)
"""Of this thread or task."""


def begin(batch: int, count: int) -> None:
    """The model gets a batch: while it has read nothing, what it asks is for all of them."""
    _reading.set(_Reading(batch, (1 << count) - 1, True))


def note(batch: int, place: int) -> None:
    """The model reads the inputs of a request. What its code has read of another batch before is not counted."""
    places = 1 << place
    last = _reading.get()
    if last is not None and last.batch == batch and not last.asked:
        places |= last.places
        if places == last.places:
            return
    _reading.set(_Reading(batch, places, False))


def asked_for() -> tuple[int, tuple[int, ...]]:
    """The batch, and the places of the requests in it; -1 where nothing was read."""
    last = _reading.get()
    if last is None:
        return -1, ()
    _reading.set(_Reading(last.batch, last.places, True))
    return last.batch, tuple(
        [place for place in range(last.places.bit_length()) if last.places >> place & 1]
    )
