"""Who can't be on time is told at once or at its time; who is more urgent goes first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_calls import MODEL_INFER, infer_request, pb
from puppets import Gate, row, told
from served import Served, json_request
from served_models import PUPPET, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e

Gates = Callable[[str], Gate]


@pytest.fixture
def gate(tmp_path: Path, server: Served, channel: grpc.Channel) -> Gates:
    """`gate(model)` holds the model up."""
    return lambda model: Gate(tmp_path, server, channel, model)


@pytest.fixture
def fresh(front: str, serve: Callable[..., Served], tmp_path: Path) -> Served:
    """A server that has learnt nothing yet of how long anything takes."""
    config = "max_batch_size: 8\ndynamic_batching { }\n" + PUPPET
    write_model(tmp_path / "models" / "puppet", "puppet", config)
    return serve(tmp_path / "models", front).wait_ready()


@pytest.fixture
def fresh_gate(tmp_path: Path, fresh: Served) -> Iterator[Gates]:
    """`fresh_gate(model)` holds a model of it up."""
    with grpc.insecure_channel(fresh.grpc) as channel:
        yield lambda model: Gate(tmp_path, fresh, channel, model)


def refused(server: Served, model: str, reason: str) -> float:
    """How many requests the model's scheduler has refused for that reason."""
    return server.metric("penstock_refused_requests_total", model, reason=reason)


def learnt(server: Served, model: str) -> None:
    """Let the scheduler learn what the model takes."""

    def known() -> bool:
        server.infer(model, json_request(1.0))
        return bool(server.get(f"/v2/models/{model}/explain").json["service_curve"])

    eventually(known, f"nothing is learnt of {model}")


@pytest.mark.extension("schedule_policy")
def test_a_time_out_over_http_is_told_while_the_instance_is_busy(
    fresh: Served, fresh_gate: Gates
) -> None:
    with fresh_gate("puppet") as held:
        began = time.monotonic()
        answer = fresh.infer("puppet", json_request(1.0, 2.0), x_request_timeout_ms="50")
        assert (answer.status, answer.error) == (504, "Request timeout expired for model 'puppet'")
        assert time.monotonic() - began >= 0.05
        # the instance is busy still
        assert not held.first.done()
        held.wait_queued(0)
    assert refused(fresh, "puppet", "expired") == 1


def test_a_time_out_over_grpc_is_told_by_the_server(fresh_gate: Gates) -> None:
    """The earlier of the two counts: the client itself, and its `grpc-timeout`, wait for longer."""
    with fresh_gate("puppet") as held:
        error = held.send(parameters={"timeout": 50_000}, timeout_s=300).exception(60)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "Request timeout expired for model 'puppet'"
        held.wait_queued(0)


def test_a_request_that_runs_expires_at_its_time_too(fresh: Served, tmp_path: Path) -> None:
    second = tmp_path / "second"
    with grpc.insecure_channel(fresh.grpc) as channel:
        call = channel.unary_unary(MODEL_INFER, pb.ModelInferRequest.SerializeToString)
        parameters: dict[str, str | int] = {"wait_for": str(second), "timeout": 60_000}
        future: Any = call.future(infer_request("puppet", parameters=parameters), timeout=300)
        error = future.exception(60)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "Request timeout expired for model 'puppet'"
        second.touch()
        # its late answer disturbs nobody
        assert fresh.infer("puppet", json_request(3.0)).status == 200


def test_what_can_not_be_on_time_is_refused_on_arrival(server: Served) -> None:
    learnt(server, "steady")
    before = refused(server, "steady", "too_late")
    # the first one may be let through, to see whether the model is still that slow
    answers = [
        server.infer("steady", json_request(1.0), x_request_timeout_ms="5") for _ in range(3)
    ]
    assert [answer.status for answer in answers] == [504] * 3
    said = answers[-1]
    assert said.error.startswith(
        "Request timeout expired for model 'steady': the answer would take"
    )
    assert said.error.endswith("ms are left")
    # waiting would not help: the model is too slow for that
    assert "retry-after" not in said.headers
    assert refused(server, "steady", "too_late") >= before + 2
    assert server.infer("steady", json_request(1.0), x_request_timeout_ms="5000").status == 200


def test_the_objective_is_a_deadline_and_the_servers_own(server: Served) -> None:
    """More than the model can do: those that would be late get Triton's text, and the others are on time."""
    learnt(server, "steady_slo")
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(MODEL_INFER, pb.ModelInferRequest.SerializeToString)
        sent: list[Any] = [
            call.future(infer_request("steady_slo", row(number)), timeout=30)
            for number in range(300)
        ]
        errors = [error for future in sent if (error := future.exception(30)) is not None]
    late = server.metric(
        "penstock_request_duration_seconds_bucket", "steady_slo", le="0.5"
    ) - server.metric("penstock_request_duration_seconds_count", "steady_slo")
    assert late == 0
    assert 0 < len(errors) < len(sent)
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert all("Request timeout expired" in error.details() for error in errors)
    explained = server.get("/v2/models/steady_slo/explain").json
    assert explained["slo"]["p99_ms"] == 200
    assert explained["policy"]["rows_cap"] == 8


def test_the_earliest_deadline_goes_first(gate: Gates) -> None:
    with gate("puppet_alone") as held:
        # given ahead, if any is: the others must not be there yet
        ahead = held.send(timeout_s=100)
        held.wait_arrived(2)
        sent = {
            name: held.send(timeout_s=timeout_s)
            for name, timeout_s in (("last", 500.0), ("first", 200.0), ("second", 300.0))
        }
        held.wait_arrived(5)
        held.open()
        ahead.result(60)
        runs = {name: told(future.result(60))["run"] for name, future in sent.items()}
    assert sorted(runs, key=runs.__getitem__) == ["first", "second", "last"]


@pytest.mark.extension("schedule_policy")
def test_more_urgent_levels_go_first(gate: Gates) -> None:
    with gate("puppet_levels") as held:
        ahead = held.send(parameters={"priority": 1})
        held.wait_arrived(2)
        levels = {"low": 3, "usual": 0, "high": 1, "none": 9}
        sent = {name: held.send(parameters={"priority": level}) for name, level in levels.items()}
        held.wait_arrived(6)
        held.open()
        ahead.result(60)
        runs = {name: told(future.result(60))["run"] for name, future in sent.items()}
    order = sorted(runs, key=runs.__getitem__)
    # what is no level is the default one
    assert order[0] == "high" and set(order[1:3]) == {"usual", "none"} and order[3] == "low"
