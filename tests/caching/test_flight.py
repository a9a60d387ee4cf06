"""Who waits for a run: by deadline, then by arrival, whatever comes and goes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.caching.flight import Flight
from penstock.caching.room import Room
from penstock.errors import QueueFull

pytestmark = pytest.mark.extension("response_cache")


@dataclass(eq=False)
class Waiting:
    """A request."""

    deadline_us: float = inf
    priority: float = 1
    nbytes: int = 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1.0, 2.0, 3.0, inf]), st.integers(1, 3), st.integers(0, 10) | st.none()
        ),
        min_size=1,
        max_size=30,
    )
)
def test_it_is_as_a_sorted_list(steps: list[tuple[float, int, int | None]]) -> None:
    here = [Waiting(*steps[0][:2])]
    flight = Flight(here[0])
    most_urgent = here[0].priority
    for deadline_us, priority, leaves in steps[1:]:
        here.append(Waiting(deadline_us, priority))
        flight.board(here[-1])
        most_urgent = min(most_urgent, priority)
        if leaves is not None and len(here) > 1:
            flight.leave(here.pop(leaves % len(here)))
        in_order = sorted(here, key=lambda each: each.deadline_us)
        assert list(flight) == in_order
        assert len(flight) == len(here)
        assert flight.first is in_order[0]
        assert flight.ends_us == in_order[-1].deadline_us
        assert flight.priority == most_urgent


def test_room_is_bounded_in_requests_and_bytes() -> None:
    room = Room("m", 2, 10)
    large, small = Waiting(nbytes=10), Waiting(nbytes=5)
    room.enter(large)
    with pytest.raises(QueueFull, match="Exceeds maximum queue size: model 'm' has 1 requests"):
        room.enter(small)
    room.leave(large)
    room.enter(small)
    room.enter(small)
    with pytest.raises(QueueFull):
        room.enter(Waiting(nbytes=0))
    room.leave(small)
    room.leave(small)
    assert room.requests == room.nbytes == 0
