"""Sequences: who gets which slot, what goes into a batch, and what ends a sequence."""

from __future__ import annotations

import pytest

from penstock.errors import InvalidRequest, Unavailable
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.gathering import unknown
from penstock.scheduling.sequence_backlog import MAX_REMEMBERED, Ending
from penstock.scheduling.sequence_queue import SequenceQueue
from penstock.scheduling.sequence_slots import SequencePolicy
from steps import Part, names, part, slots, submit

START = "must specify the START flag on the first request of the sequence"


def queue_of(
    slots: int = 2,
    *,
    direct: bool = True,
    utilization: float = 0.0,
    instances: tuple[str, ...] = ("one",),
    weights: dict[str, float] | None = None,
    **batch: object,
) -> SequenceQueue[Part]:
    """A queue whose sequences are idle after 100 µs."""
    policy = SequencePolicy(slots, 100, direct, utilization)
    batching = BatchPolicy(**{"max_rows": slots, "merge": True, **batch})  # type: ignore[arg-type]
    queue = SequenceQueue[Part]("m", policy, batching, lambda t: (weights or {}).get(t, 1.0))
    for instance in instances:
        queue.join(instance)
    return queue


def take(queue: SequenceQueue[Part], instance: str = "one") -> list[str]:
    """What the instance gets."""
    batch, late = queue.take_for(instance, unknown)
    assert not late
    return names(batch)


def run(queue: SequenceQueue[Part], instance: str = "one") -> list[str]:
    """What the instance gets, and has done."""
    batch = take(queue, instance)
    queue.finished(instance)
    return batch


@pytest.mark.parametrize("direct", [True, False])
def test_one_request_of_a_sequence_runs_at_a_time_in_order(direct: bool) -> None:
    queue = queue_of(direct=direct)
    submit(queue, "1<:a", "1:b", "2<:c", "1>:d")
    assert [run(queue), run(queue), run(queue)] == [["1<:a", "2<:c"], ["1:b"], ["1>:d"]]
    assert queue.live == 1
    assert queue.counts.ended[Ending.COMPLETED] == 1


def test_direct_a_sequence_keeps_its_row() -> None:
    queue = queue_of(3)
    (_, _, third) = submit(queue, "1<", "2<", "3<")
    run(queue)
    (again,) = submit(queue, "3")
    assert run(queue) == ["3"]
    assert slots([third, again]) == [2, 2]


def test_the_next_one_waits_while_the_one_before_runs() -> None:
    queue = queue_of()
    submit(queue, "1<")
    assert take(queue) == ["1<"]
    submit(queue, "1")
    assert take(queue) == []
    assert queue.next_due_us() is None
    queue.finished("one")
    assert take(queue) == ["1"]


def test_new_sequences_are_spread_over_instances() -> None:
    queue = queue_of(2, instances=("one", "two"))
    submit(queue, "1<", "2<", "3<")
    assert queue.slots_held() == {"one": [1, 3], "two": [2]}


def test_more_sequences_than_slots_wait_for_the_end_of_one() -> None:
    queue = queue_of(1)
    submit(queue, "1<", "2<", "2", "3<>")
    assert (queue.counts.active, queue.counts.backlog) == (1, 2)
    assert run(queue) == ["1<"]
    assert run(queue) == []
    submit(queue, "1>")
    assert [run(queue), run(queue), run(queue)] == [["1>"], ["2<"], ["2"]]
    submit(queue, "2>")
    assert [run(queue), run(queue)] == [["2>"], ["3<>"]]
    assert (queue.live, queue.counts.active, queue.counts.backlog) == (0, 0, 0)


def test_backlog_gives_the_slot_to_the_tenant_that_has_fewest_for_its_weight() -> None:
    queue = queue_of(3, weights={"big": 2.0, "small": 1.0})
    for number in range(1, 6):
        submit(queue, f"{number}<", tenant="big")
    submit(queue, "8<", "9<", tenant="small")
    assert queue.slots_held() == {"one": [1, 2, 3]}
    run(queue)
    submit(queue, "1>", tenant="big")
    run(queue)
    assert queue.slots_held() == {"one": [8, 2, 3]}
    submit(queue, "2>", tenant="big")
    run(queue)
    assert queue.slots_held() == {"one": [8, 4, 3]}


def test_two_tenants_sequences_of_one_id_are_two() -> None:
    queue = queue_of()
    submit(queue, "7<:a", tenant="x")
    with pytest.raises(InvalidRequest, match="must specify the START flag"):
        submit(queue, "7:stolen", tenant="y")
    submit(queue, "7<:b", tenant="y")
    assert run(queue) == ["7<:a", "7<:b"]
    (more,) = submit(queue, "7:c", tenant="x")
    submit(queue, "7>:d", tenant="y")
    assert run(queue) == ["7:c", "7>:d"]
    assert more.step.slot == 0
    assert queue.holds(("x", 7))
    assert not queue.holds(("y", 7))


def test_what_a_tenant_hears_of_a_lost_sequence_another_does_not() -> None:
    queue = queue_of()
    submit(queue, "7<", tenant="x")
    run(queue)
    queue.lose("one", "gone")
    with pytest.raises(Unavailable, match="sequence 7 of model 'm' was lost: gone"):
        submit(queue, "7", tenant="x")
    with pytest.raises(InvalidRequest, match="must specify the START flag"):
        submit(queue, "7", tenant="y")


def test_an_id_that_is_used_again_at_once_waits_behind_those_that_wait() -> None:
    queue = queue_of(1)
    submit(queue, "1<>:a", "2<>", "1<>:b", "3<>")
    assert [run(queue), run(queue), run(queue), run(queue)] == [
        ["1<>:a"],
        ["2<>"],
        ["3<>"],
        ["1<>:b"],
    ]


def test_a_start_of_an_active_sequence_begins_it_anew_in_its_slot() -> None:
    queue = queue_of()
    parts = submit(queue, "1<:a", "1:b", "1<:c")
    for _ in parts:
        run(queue)
    assert [each.step.start for each in parts] == [True, False, True]
    assert slots(parts) == [0, 0, 0]


@pytest.mark.parametrize("sent", [(), ("1<", "1>"), ("1<>",)])
def test_a_request_of_a_sequence_that_is_not_there_is_refused(sent: tuple[str, ...]) -> None:
    queue = queue_of()
    submit(queue, *sent)
    with pytest.raises(InvalidRequest, match=f"sequence 1 to model 'm' {START}$"):
        submit(queue, "1")
    for each in sent:
        assert run(queue) == [each]
    with pytest.raises(InvalidRequest, match=START):
        submit(queue, "1>")


def test_numbers_and_texts_are_different_ids() -> None:
    queue = queue_of()
    submit(queue, "1<")
    text = part("1<")
    text.sequence = type(text.sequence)("1", True, False)
    submit(queue, text)
    assert queue.slots_held() == {"one": [1, "1"]}


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_direct_a_batch_has_one_shape_and_the_oldest_request_says_which() -> None:
    queue = queue_of(3)
    submit(
        queue,
        part("1<", shape_key="b", arrived_ns=2),
        part("2<", arrived_ns=1),
        part("3<", arrived_ns=3),
    )
    assert [run(queue), run(queue)] == [["2<", "3<"], ["1<"]]


def test_direct_a_batch_has_no_more_bytes_than_it_may() -> None:
    queue = queue_of(3, max_batch_bytes=20)
    submit(queue, "1<", "2<", "3<")
    assert [run(queue), run(queue)] == [["1<", "2<"], ["3<"]]


def test_direct_waits_until_enough_slots_have_a_request() -> None:
    queue = queue_of(4, utilization=0.5, max_delay_us=50)
    submit(queue, "1<")
    assert take(queue) == []
    assert queue.next_due_us() == 50
    submit(queue, "2<")
    assert take(queue) == ["1<", "2<"]


@pytest.mark.parametrize(("utilization", "delay_us"), [(0.0, 50), (0.5, 0)])
def test_direct_does_not_wait_without_both_settings(utilization: float, delay_us: int) -> None:
    queue = queue_of(4, utilization=utilization, max_delay_us=delay_us)
    submit(queue, "1<")
    assert take(queue) == ["1<"]


def test_direct_waits_no_longer_than_it_may() -> None:
    queue = queue_of(4, utilization=1.0, max_delay_us=50)
    submit(queue, "1<")
    queue.now_us = 50
    assert take(queue) == ["1<"]


def test_oldest_waits_for_a_preferred_size() -> None:
    queue = queue_of(4, direct=False, preferred_rows=(2,), max_delay_us=50)
    submit(queue, "1<")
    assert take(queue) == []
    assert queue.next_due_us() == 50
    submit(queue, "2<", "3<")
    assert run(queue) == ["1<", "2<"]
    queue.now_us = 50
    assert run(queue) == ["3<"]


def test_oldest_has_more_candidates_than_rows() -> None:
    queue = queue_of(4, direct=False, max_rows=2)
    submit(queue, "1<", "2<", "3<", "1", "4<")
    assert [run(queue), run(queue), run(queue)] == [["1<", "2<"], ["3<", "4<"], ["1"]]


def test_candidates_without_bound_take_no_memory() -> None:
    queue = queue_of(2**31 - 1, direct=False, max_rows=4)
    begun = submit(queue, "1<", "2<>", "3<")
    run(queue)
    begun += submit(queue, "4<", "5<")
    run(queue)
    assert slots(begun) == [0, 1, 2, 1, 3]


@pytest.mark.parametrize("direct", [True, False])
def test_what_would_be_late_leaves_and_its_sequence_goes_on(direct: bool) -> None:
    queue = queue_of(direct=direct)
    submit(queue, "1<")
    run(queue)
    late, follower = submit(queue, part("1:late", deadline_us=5), part("1"))
    queue.now_us = 6
    batch, dropped = queue.take_for("one", unknown)
    assert (names(batch), names(dropped)) == (["1"], ["1:late"])
    assert not follower.step.start
    assert late.step.slot == -1


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sequence_that_is_idle_for_too_long_ends_and_frees_its_slot() -> None:
    queue = queue_of(1)
    submit(queue, "1<", "2<")
    queue.now_us = 10
    run(queue)
    assert queue.next_idle_us == 110
    queue.now_us = 109
    assert queue.end_idle() == []
    queue.now_us = 110
    assert queue.end_idle() == [1]
    assert run(queue) == ["2<"]
    with pytest.raises(
        InvalidRequest, match=rf"{START}: the one before was idle for longer than 0.0001 s"
    ):
        submit(queue, "1")
    assert queue.counts.ended[Ending.IDLE] == 1


def test_a_sequence_is_not_idle_while_it_waits_or_runs() -> None:
    queue = queue_of(2)
    submit(queue, "1<")
    assert queue.next_idle_us is None
    take(queue)
    queue.now_us = 1000
    assert queue.end_idle() == []
    queue.finished("one")
    assert queue.next_idle_us == 1100
    submit(queue, "1")
    assert queue.next_idle_us is None


def test_after_a_start_nobody_hears_of_the_one_before() -> None:
    queue = queue_of(1)
    submit(queue, "1<")
    run(queue)
    queue.now_us = 500
    queue.end_idle()
    submit(queue, "1<>")
    run(queue)
    with pytest.raises(InvalidRequest, match=f"{START}$"):
        submit(queue, "1")


def test_a_lost_instance_ends_its_sequences_and_their_clients_are_told() -> None:
    queue = queue_of(1, instances=("one", "two"))
    submit(queue, "1<", "2<")
    run(queue)
    running, waiting = submit(queue, "1:a", "1:b")
    assert take(queue) == ["1:a"]
    failed = queue.lose("one", "the worker ended: killed by SIGKILL")
    assert [request for request, _ in failed] == [running, waiting]
    text = "sequence 1 of model 'm' was lost: the worker ended: killed by SIGKILL; start it again"
    assert all(isinstance(error, Unavailable) and str(error) == text for _, error in failed)
    with pytest.raises(Unavailable, match=text):
        submit(queue, "1")
    assert take(queue, "two") == ["2<"]
    submit(queue, "1<")
    assert queue.counts.ended[Ending.LOST] == 1
    assert queue.counts.backlog == 1


def test_what_begins_anew_is_not_lost_with_its_instance() -> None:
    queue = queue_of(2)
    submit(queue, "1<:old", "2<:unbegun", "2:unbegun")
    queue.take_for("one", unknown)
    submit(queue, "1>:gone", "1<:new")
    failed = queue.lose("one", "gone")
    assert names([request for request, _ in failed]) == [
        "1<:old",
        "1>:gone",
        "2<:unbegun",
        "2:unbegun",
    ]
    queue.join("two")
    assert run(queue, "two") == ["1<:new"]
    with pytest.raises(Unavailable, match="sequence 2 of model 'm' was lost"):
        submit(queue, "2")


def test_a_sequence_that_had_not_begun_goes_to_another_instance() -> None:
    queue = queue_of(2)
    submit(queue, "1<", "1", "2<>")
    assert queue.lose("one", "gone") == []
    assert (queue.requests, queue.counts.backlog) == (3, 2)
    queue.join("two")
    assert [run(queue, "two"), run(queue, "two")] == [["1<", "2<>"], ["1"]]


def test_lost_sequences_are_remembered_within_bounds() -> None:
    queue = queue_of(MAX_REMEMBERED + 1)
    for number in range(1, MAX_REMEMBERED + 2):
        submit(queue, f"{number}<")
    run(queue)
    queue.lose("one", "gone")
    with pytest.raises(InvalidRequest, match=START):
        submit(queue, "1")
    with pytest.raises(Unavailable, match="lost"):
        submit(queue, "2")


# ── withdrawn requests ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_request_leaves_and_the_sequence_goes_on() -> None:
    queue = queue_of()
    _, second, _ = submit(queue, "1<", "1:b", "1>:c")
    assert queue.cancel(second)
    assert [run(queue), run(queue)] == [["1<"], ["1>:c"]]
    assert (queue.live, queue.requests, queue.nbytes) == (0, 0, 0)


def test_a_running_request_can_not_be_cancelled() -> None:
    queue = queue_of()
    (first,) = submit(queue, "1<")
    take(queue)
    assert not queue.cancel(first)


def test_a_cancelled_end_ends_the_sequence_all_the_same() -> None:
    queue = queue_of(1)
    _, end = submit(queue, "1<", "1>")
    submit(queue, "2<")
    assert take(queue) == ["1<"]
    queue.cancel(end)
    with pytest.raises(InvalidRequest, match=START):
        submit(queue, "1")
    queue.finished("one")
    assert run(queue) == ["2<"]


def test_a_cancelled_end_of_an_idle_sequence_frees_the_slot() -> None:
    queue = queue_of(1, utilization=1.0)
    submit(queue, "1<")
    run(queue)
    (end,) = submit(queue, "1>")
    queue.cancel(end)
    assert queue.live == 0
    submit(queue, "2<>")
    assert run(queue) == ["2<>"]


def test_the_request_behind_a_cancelled_start_begins_the_sequence() -> None:
    queue = queue_of()
    start, second = submit(queue, "1<", "1")
    queue.cancel(start)
    assert run(queue) == ["1"]
    assert second.step.start


def test_a_cancelled_start_with_nothing_behind_it_ends_the_sequence() -> None:
    queue = queue_of()
    submit(queue, "1<:old")
    run(queue)
    (start,) = submit(queue, "1<:new")
    queue.cancel(start)
    with pytest.raises(InvalidRequest, match=START):
        submit(queue, "1")


@pytest.mark.parametrize("direct", [True, False])
def test_what_could_not_be_sent_is_as_if_it_was_cancelled(direct: bool) -> None:
    queue = queue_of(direct=direct)
    submit(queue, "1<:a")
    _, follower = submit(queue, "2<:b", "2")
    assert take(queue) == ["1<:a", "2<:b"]
    queue.not_run("one")
    assert run(queue) == ["2"]
    assert follower.step.start
    with pytest.raises(InvalidRequest, match=START):
        submit(queue, "1")


def test_drain_takes_all_that_waits() -> None:
    queue = queue_of(1)
    parts = submit(queue, "1<", "1", "2<", "2>")
    assert queue.drain() == parts
    assert (queue.live, queue.requests) == (0, 0)
