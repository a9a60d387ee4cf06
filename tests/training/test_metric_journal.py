"""Metrics that wait for MLflow: none is lost, and none of them is sent twice under another time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_training.metric_journal import METRICS, MetricJournal


def waiting(journal: MetricJournal) -> list[tuple[int, dict[str, float]]]:
    entries, _ = journal.unsent(1000)
    return [(entry.step, dict(entry.values)) for entry in entries]


def test_what_was_noted_is_sent_in_order(tmp_path: Path) -> None:
    journal = MetricJournal(tmp_path)
    journal.add(1, {"loss": 2.0, "accuracy": 0.5})
    journal.add(2, {"loss": 1.0})
    entries, place = journal.unsent(1000)
    assert waiting(journal) == [(1, {"loss": 2.0, "accuracy": 0.5}), (2, {"loss": 1.0})]
    assert entries[0].time_ms <= entries[1].time_ms
    journal.advance(place)
    assert waiting(journal) == []
    assert journal.unsent_bytes == 0


def test_a_batch_is_no_larger_than_mlflow_takes(tmp_path: Path) -> None:
    journal = MetricJournal(tmp_path)
    for step in range(5):
        journal.add(step, {"a": 1, "b": 2})
    entries, place = journal.unsent(5)
    assert [entry.step for entry in entries] == [0, 1]
    journal.advance(place)
    assert journal.unsent(1)[0][0].step == 2, "one that is larger by itself is sent all the same"


def test_another_process_goes_on(tmp_path: Path) -> None:
    first = MetricJournal(tmp_path)
    first.add(1, {"loss": 2.0})
    first.advance(first.unsent(10)[1])
    first.add(2, {"loss": 1.0})
    second = MetricJournal(tmp_path)
    assert waiting(second) == [(2, {"loss": 1.0})]
    assert (second.next_step("loss"), second.next_step("other")) == (3, 0)


def test_steps_that_a_resumed_run_repeats_are_noted_once(tmp_path: Path) -> None:
    journal = MetricJournal(tmp_path)
    for step in (1, 2, 3):
        journal.add(step, {"loss": 1 / step})
    again = MetricJournal(tmp_path)
    again.add(2, {"loss": 9.0})
    again.add(3, {"loss": 9.0, "accuracy": 0.5})
    again.add(4, {"loss": 0.25})
    assert waiting(again)[3:] == [(3, {"accuracy": 0.5}), (4, {"loss": 0.25})]


def test_what_is_no_number_is_kept_too(tmp_path: Path) -> None:
    journal = MetricJournal(tmp_path)
    journal.add(1, {"loss": float("nan"), "norm": float("inf")})
    values = waiting(MetricJournal(tmp_path))[0][1]
    assert values["loss"] != values["loss"]
    assert values["norm"] == float("inf")


@given(st.integers(0, 200))
def test_a_line_that_was_cut_by_a_kill_is_none(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = MetricJournal(folder)
    for step in range(4):
        journal.add(step, {"loss": float(step)})
    content = (folder / METRICS).read_bytes()
    (folder / METRICS).write_bytes(content[:cut])
    again = MetricJournal(folder)
    whole = content[:cut].count(b"\n")
    again.add(9, {"loss": 9.0})
    assert [step for step, _ in waiting(again)] == [*range(whole), 9]


def test_a_place_that_lies_beyond_the_file_is_its_end(tmp_path: Path) -> None:
    journal = MetricJournal(tmp_path)
    journal.add(1, {"loss": 1.0})
    journal.advance(10_000)
    again = MetricJournal(tmp_path)
    again.add(2, {"loss": 0.5})
    assert waiting(again) == [(2, {"loss": 0.5})]
