"""Requests that come together run together, within the bounds that the configuration sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from puppets import Gate, failures, queued, row, told
from served import Served, json_request
from supervised import eventually

pytestmark = pytest.mark.e2e

Gates = Callable[[str], Gate]


@pytest.fixture
def gate(tmp_path: Path, server: Served, channel: grpc.Channel) -> Gates:
    """`gate(model)` holds the model up."""
    return lambda model: Gate(tmp_path, server, channel, model)


def batch_counts(server: Served, model: str) -> Counter[int]:
    """Rows of a batch → how many such batches ran."""
    stats = server.statistics(model)["batch_stats"]
    return Counter({size["batch_size"]: size["compute_infer"]["count"] for size in stats})


def test_what_waits_together_runs_together(server: Served, gate: Gates) -> None:
    before = batch_counts(server, "puppet")
    with gate("puppet") as held:
        waiting = [held.send(row(number, number)) for number in range(5)]
        held.wait_queued(5)
        held.open()
        answers = [future.result(30) for future in waiting]
    for number, answer in enumerate(answers):
        assert told(answer)["requests"] == 5
        assert answer.raw_output_contents[0] == row(number, number).tobytes()
    assert batch_counts(server, "puppet") - before == {1: 1, 5: 1}


def test_different_shapes_never_mix(gate: Gates) -> None:
    with gate("puppet") as held:
        waiting = [held.send(np.full((1, 2 + n % 2), n, np.float32)) for n in range(7)]
        held.wait_queued(7)
        held.open()
        answers = [future.result(30) for future in waiting]
    assert [told(answer)["requests"] for answer in answers] == [4, 3, 4, 3, 4, 3, 4]
    for number, answer in enumerate(answers):
        expected = np.full((1, 2 + number % 2), number, np.float32)
        assert answer.raw_output_contents[0] == expected.tobytes()


def test_different_sets_of_inputs_never_mix(server: Served, channel: grpc.Channel) -> None:
    """`types` has optional inputs: requests that give different ones can't be joined."""
    calls = []
    for number in range(40):
        datatype, dtype = (("FP32", np.float32), ("INT64", np.int64))[number % 2]
        held = Gate(Path(), server, channel, "types")
        array = np.full((1, 1), number, dtype)
        calls.append(held.send(array, name=f"X_{datatype}", datatype=datatype))
    for number, call in enumerate(calls):
        (output,) = call.result(30).outputs
        assert output.name == ("Y_FP32", "Y_INT64")[number % 2]
        assert call.result().raw_output_contents[0] == (
            np.array([number], (np.float32, np.int64)[number % 2]).tobytes()
        )


def test_no_batch_is_larger_than_the_model_takes(server: Served, gate: Gates) -> None:
    before = batch_counts(server, "puppet")
    with gate("puppet") as held:
        # full batches go to the busy worker ahead of time: the next one runs without a pause
        waiting = [held.send(np.full((3, 2), n, np.float32)) for n in range(5)]
        held.wait_arrived(6, rows=3)
        eventually(lambda: queued(server, "puppet") == 3, "no batch was sent ahead")
        held.open()
        answers = [future.result(30) for future in waiting]
    assert batch_counts(server, "puppet") - before == {1: 1, 6: 2, 3: 1}
    for number, answer in enumerate(answers):
        assert answer.raw_output_contents[0] == np.full((3, 2), number, np.float32).tobytes()


def test_without_dynamic_batching_nothing_is_joined(server: Served, gate: Gates) -> None:
    with gate("puppet_alone") as held:
        waiting = [held.send() for _ in range(4)]
        held.open()
        assert [told(future.result(30))["requests"] for future in waiting] == [1] * 4
    assert set(batch_counts(server, "puppet_alone")) == {1}


def test_one_bad_request_does_not_fail_its_mates(gate: Gates) -> None:
    with gate("puppet") as held:
        good = [held.send(row(1, 2)), held.send(row(3, 4))]
        bad = held.send(row(5, 6), parameters={"error": "not this one"})
        good.append(held.send(row(7, 8)))
        held.wait_queued(4)
        held.open()
        assert bad.exception(30).details() == "not this one"
        answers = [future.result(30).raw_output_contents[0] for future in good]
    assert answers == [row(1, 2).tobytes(), row(3, 4).tobytes(), row(7, 8).tobytes()]


def test_a_preferred_size_goes_at_once(server: Served, gate: Gates, tmp_path: Path) -> None:
    """One request waits for company, a minute if need be; the second is that company."""
    held = gate("puppet_patient")
    first = held.send()
    held.wait_queued(1)
    assert not first.done()
    second = held.send()
    assert [told(call.result(30))["requests"] for call in (first, second)] == [2, 2]
    assert queued(server, "puppet_patient") == 0


def test_answers_in_order_where_order_is_asked_for(
    server: Served, gate: Gates, channel: grpc.Channel
) -> None:
    order: list[str] = []
    before = server.statistics("puppet_ordered")["execution_count"]
    with gate("puppet_ordered") as held:
        held.first.add_done_callback(lambda _: order.append("first"))
        second = held.send()
        second.add_done_callback(lambda _: order.append("second"))
        # the other instance has answered it, and the first still runs
        eventually(
            lambda: server.statistics("puppet_ordered")["execution_count"] == before + 1,
            "the second did not run",
        )
        assert not second.done()
        held.open()
        instances = [told(call.result(30))["instance"] for call in (held.first, second)]
    assert len(set(instances)) == 2
    eventually(lambda: len(order) == 2, "callbacks did not run")
    assert order == ["first", "second"]


def test_answers_as_they_come_otherwise(gate: Gates) -> None:
    with gate("puppet_pair") as held:
        second = held.send()
        instance = told(second.result(30))["instance"]
        assert not held.first.done()
        held.open()
        assert told(held.first.result(30))["instance"] != instance


def test_a_full_queue_refuses(server: Served, gate: Gates) -> None:
    before = failures(server, "puppet_short", "REJECTED")
    text = "Exceeds maximum queue size"
    with gate("puppet_short") as held:
        # one is sent ahead to the busy worker, two wait
        waiting = [held.send(), held.send()]
        held.wait_queued(1)
        waiting.append(held.send())
        held.wait_queued(2)
        refused = held.send().exception(30)
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert text in refused.details()
        answer = server.infer("puppet_short", json_request(1, 2))
        assert answer.status == 503
        assert text in answer.error
        held.open()
        for future in waiting:
            assert future.result(30).model_name == "puppet_short"
    assert failures(server, "puppet_short", "REJECTED") == before + 2


def test_whoever_leaves_is_not_computed_for(server: Served, gate: Gates) -> None:
    before = server.statistics("puppet")["execution_count"]
    cancelled = failures(server, "puppet", "CANCELED")
    with gate("puppet") as held:
        gone = held.send(row(1, 2))
        stays = held.send(row(3, 4))
        held.wait_queued(2)
        gone.cancel()
        held.wait_queued(1)
        held.open()
        assert told(stays.result(30))["requests"] == 1
    assert failures(server, "puppet", "CANCELED") == cancelled + 1
    assert server.statistics("puppet")["execution_count"] == before + 2


def test_a_closed_connection_is_noticed(server: Served, gate: Gates) -> None:
    cancelled = failures(server, "puppet", "CANCELED")
    with gate("puppet") as held:
        connection = server.start_infer("puppet", json_request(1, 2))
        held.wait_queued(1)
        connection.close()
        held.wait_queued(0)
    assert failures(server, "puppet", "CANCELED") == cancelled + 1


def test_a_deadline_is_kept(server: Served, gate: Gates, channel: grpc.Channel) -> None:
    """The client is told in time, and its request leaves the queue."""
    with gate("puppet") as held:
        late = held.send(timeout_s=0.3)
        assert late.exception(30).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        held.wait_queued(0)
