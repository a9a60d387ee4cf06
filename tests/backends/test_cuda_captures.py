"""Which shapes are captured as CUDA graphs: pure."""

from __future__ import annotations

from collections.abc import Hashable

from penstock.backends.cuda_captures import MAX_SHAPES_COUNTED, Captures, Way


def shape(rows: int) -> Hashable:
    return (("X", (rows, 4)),)


def capture(captures: Captures, rows: int) -> None:
    assert captures.way(shape(rows)) is Way.PLAIN
    assert captures.way(shape(rows)) is Way.CAPTURE
    captures.done(shape(rows))


def test_what_comes_again_is_captured() -> None:
    captures = Captures(2)
    capture(captures, 1)
    assert captures.way(shape(1)) is Way.REPLAY
    capture(captures, 2)
    assert [captures.way(shape(3)) for _ in range(3)] == [Way.PLAIN] * 3
    assert captures.way(shape(2)) is Way.REPLAY


def test_what_cannot_be_captured_is_not_tried_again() -> None:
    captures = Captures(2)
    for rows in (1, 2):
        captures.way(shape(rows))
        assert captures.way(shape(rows)) is Way.CAPTURE
        captures.failed(shape(rows))
        assert captures.way(shape(rows)) is Way.PLAIN
    # two may be captured; after two that could not be no third one is tried
    assert [captures.way(shape(3)) for _ in range(3)] == [Way.PLAIN] * 3


def test_shapes_that_come_once_are_forgotten() -> None:
    captures = Captures(4)
    captures.way(shape(0))
    for rows in range(1, MAX_SHAPES_COUNTED + 1):
        captures.way(shape(rows))
    assert captures.way(shape(0)) is Way.PLAIN
    assert captures.way(shape(0)) is Way.CAPTURE


def test_what_is_gone_is_captured_again_when_it_comes_again() -> None:
    captures = Captures(2)
    capture(captures, 1)
    captures.forget()
    capture(captures, 1)


def test_after_a_stop_only_what_is_there_is_replayed() -> None:
    captures = Captures(4)
    capture(captures, 1)
    captures.way(shape(2))
    captures.stop()
    assert [captures.way(shape(rows)) for rows in (1, 2, 2, 3)] == [Way.REPLAY, *[Way.PLAIN] * 3]


def test_where_none_are_wanted_all_run_plainly() -> None:
    captures = Captures(0)
    assert [captures.way(shape(1)) for _ in range(3)] == [Way.PLAIN] * 3
