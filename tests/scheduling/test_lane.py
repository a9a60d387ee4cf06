"""A lane is sorted by deadline and place, as a whole and shape by shape, whatever comes and goes."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.scheduling.lane import Lane
from simulation import Job


def lane(*jobs: Job) -> Lane[Job]:
    """A lane with these, which came one after the other."""
    made = Lane[Job]("t", 1.0)
    for number, job in enumerate(jobs, 1):
        job.number = number
        made.add(job)
    return made


def test_the_earliest_deadline_is_first_and_then_who_came_first() -> None:
    patient, late, early, early_too = (
        Job(),
        Job(deadline_us=9),
        Job(deadline_us=3),
        Job(deadline_us=3),
    )
    assert lane(patient, late, early, early_too).requests() == [early, early_too, late, patient]


def test_rows_before_a_deadline_are_estimated_by_the_average_request() -> None:
    queue = lane(Job(rows=1, deadline_us=1), Job(rows=2, deadline_us=2), Job(rows=6))
    assert [queue.rows_before(at) for at in (0, 1, 2, 5, inf)] == [0, 3, 6, 6, 9]
    assert lane().rows_before(inf) == 0


STEP = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abc"), st.sampled_from([1.0, 2.0, 3.0, inf])),
    st.tuples(st.just("remove"), st.integers(0, 20), st.none()),
    st.tuples(st.just("remove_first"), st.sampled_from("abc"), st.integers(1, 3)),
)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(STEP, max_size=40), st.lists(st.integers(1, 4), min_size=40, max_size=40))
def test_it_is_what_a_sorted_list_would_be(
    steps: list[tuple[str, str | int, float | None]], rows: list[int]
) -> None:
    queue, plain = lane(), list[Job]()
    for number, (kind, what, more) in enumerate(steps, 1):
        if kind == "add" and more is not None:
            job = Job(rows=rows[number - 1], shape_key=what, deadline_us=more, number=number)
            queue.add(job)
            plain.append(job)
        elif kind == "remove" and isinstance(what, int) and plain:
            queue.remove(plain.pop(what % len(plain)))
        elif kind == "remove_first" and more is not None:
            first = [job for job in plain if job.shape_key == what][: int(more)]
            if first:
                queue.remove_first(what, len(first), sum(job.rows for job in first))
            plain = [job for job in plain if job not in first]
        plain.sort(key=lambda job: (job.deadline_us, job.number))
        assert queue.requests() == plain
        assert (len(queue), queue.rows) == (len(plain), sum(job.rows for job in plain))
        for shape in "abc":
            of_shape = [job for job in plain if job.shape_key == shape]
            assert [entry[2] for entry in queue.of(shape)] == of_shape
