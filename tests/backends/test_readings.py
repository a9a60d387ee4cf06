"""For which requests of its batch a model asks another one."""

from __future__ import annotations

from contextvars import Context
from threading import Thread

import pytest

from penstock.backends.readings import asked_for, begin, note

pytestmark = pytest.mark.extension("bls")


def _asked_after(*places: int, batch: int = 7) -> tuple[int, tuple[int, ...]]:
    for place in places:
        note(batch, place)
    return asked_for()


def test_code_that_has_read_nothing_asks_for_its_whole_batch() -> None:
    begin(7, 3)
    assert asked_for() == (7, (0, 1, 2))
    assert asked_for() == (7, (0, 1, 2))


def test_it_asks_for_all_that_it_has_read_since_it_asked_last() -> None:
    begin(7, 70)
    assert _asked_after(69, 0, 69, 5) == (7, (0, 5, 69))
    assert _asked_after(2) == (7, (2,))
    assert _asked_after() == (7, (2,))


def test_what_was_read_of_another_batch_does_not_count() -> None:
    note(6, 3)
    assert _asked_after(1, batch=7) == (7, (1,))


def test_a_context_without_a_batch_asks_for_none() -> None:
    assert Context().run(asked_for) == (-1, ())


def test_each_thread_has_its_own() -> None:
    begin(7, 2)
    note(7, 0)
    heard: list[object] = []
    thread = Thread(target=lambda: heard.append(_asked_after(1)))
    thread.start()
    thread.join()
    assert heard == [(7, (1,))]
    assert asked_for() == (7, (0,))
