"""Queue policies by level on the running server: who waits for too long, and who is one too many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from puppets import Gate, failures, row, told
from served import Served
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("schedule_policy")]

IMPATIENT, DELAYING = "puppet_impatient", "puppet_delaying"
Busy = Callable[[str], Any]


@pytest.fixture
def busy(tmp_path: Path, server: Served, channel: grpc.Channel) -> Busy:
    """`busy(model)` holds the model up, with one more request that was given to its worker ahead of time."""

    @contextmanager
    def hold(model: str) -> Iterator[Gate]:
        folder = Path(mkdtemp(dir=tmp_path))
        with Gate(folder, server, channel, model) as held:
            held.send()
            held.wait_arrived(2)
            held.wait_queued(0)
            yield held

    return hold


def explained(server: Served, model: str) -> dict[str, Any]:
    """What the server says of the model's scheduling."""
    told: dict[str, Any] = server.get(f"/v2/models/{model}/explain").json
    return told


def refused(server: Served, model: str, reason: str) -> float:
    """How many requests the model's scheduler has refused for that reason."""
    return server.metric("penstock_refused_requests_total", model, reason=reason)


def test_the_extension_is_advertised(server: Served) -> None:
    assert "schedule_policy" in server.get("/v2").json["extensions"]


def test_who_waits_for_too_long_is_told_at_that_time(
    server: Served,
    busy: Busy,
    http: tritonclient.http.InferenceServerClient,
    rpc: tritonclient.grpc.InferenceServerClient,
) -> None:
    """Over both protocols, and while the only instance is busy. The clients may not shorten the time."""
    before = refused(server, IMPATIENT, "queue_timeout"), failures(server, IMPATIENT, "REJECTED")
    text = f"Request timeout expired for model '{IMPATIENT}'"
    for client, module, status in (
        (http, tritonclient.http, "503"),
        (rpc, tritonclient.grpc, "StatusCode.UNAVAILABLE"),
    ):
        x = module.InferInput("X", [1, 2], "FP32")
        x.set_data_from_numpy(row(1, 2))
        with busy(IMPATIENT) as held:
            began = time.monotonic()
            with pytest.raises(InferenceServerException, match=text) as caught:
                client.infer(IMPATIENT, [x], timeout=1)
            assert caught.value.status() == status
            assert time.monotonic() - began >= 0.2
            # both that the worker was given before are still there
            assert sum(explained(server, IMPATIENT)["instances"][0]["running_rows"]) == 2
            held.open()
    assert refused(server, IMPATIENT, "queue_timeout") == before[0] + 2
    assert failures(server, IMPATIENT, "REJECTED") == before[1] + 2


def test_the_late_run_after_those_on_time(server: Served, busy: Busy) -> None:
    delayed = explained(server, DELAYING)["queue"]["delayed"]
    with busy(DELAYING) as held:
        sent = {"late": held.send(parameters={"timeout": 1000})}
        eventually(
            lambda: explained(server, DELAYING)["queue"]["delayed"] == delayed + 1,
            "the request is not late",
        )
        sent |= {"fresh": held.send(), "low": held.send(parameters={"priority": 2})}
        held.wait_queued(3)
        levels = explained(server, DELAYING)["queue"]["levels"]
        assert [(each["level"], each["late"]) for each in levels] == [
            (1, False),
            (1, True),
            (2, False),
        ]
        held.open()
        runs = {name: told(future.result(60))["run"] for name, future in sent.items()}
    assert sorted(runs, key=runs.__getitem__) == ["fresh", "late", "low"]
    assert server.metric("penstock_delayed_requests_total", DELAYING) == delayed + 1


def test_the_late_are_bound_by_their_clients_deadline(server: Served, busy: Busy) -> None:
    with busy(DELAYING) as held:
        late = held.send(parameters={"timeout": 1000}, timeout_s=0.3)
        assert late.exception(30).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        held.wait_queued(0)


def test_a_full_level_refuses_and_the_others_do_not(server: Served, busy: Busy) -> None:
    before = refused(server, DELAYING, "queue_full")
    with busy(DELAYING) as held:
        low = held.send(parameters={"priority": 2})
        held.wait_queued(1)
        error = held.send(parameters={"priority": 2}).exception(30)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "Exceeds maximum queue size: level 2 of" in error.details()
        usual = [held.send() for _ in range(3)]
        held.wait_queued(4)
        held.open()
        for future in (low, *usual):
            future.result(30)
    assert refused(server, DELAYING, "queue_full") == before + 1


def test_priorities_and_time_outs_over_http(
    server: Served, busy: Busy, http: tritonclient.http.InferenceServerClient
) -> None:
    """As over gRPC: 0, and what is no level, is the default one; a time-out says when the request is late."""
    x = tritonclient.http.InferInput("X", [1, 2], "FP32")
    x.set_data_from_numpy(row(1, 2))
    with busy(DELAYING) as held:
        sent = [
            http.async_infer(DELAYING, [x], priority=priority, timeout=timeout)
            for priority, timeout in ((0, None), (1, None), (9, None), (2, 60_000_000), (1, 1000))
        ]

        def told() -> dict[tuple[int, bool], int]:
            levels = explained(server, DELAYING)["queue"]["levels"]
            return {
                (level["level"], level["late"]): level["tenants"][0]["requests"] for level in levels
            }

        expected = {(1, False): 3, (1, True): 1, (2, False): 1}
        eventually(lambda: told() == expected, "they are not where they should be")
        held.open()
        for each in sent:
            each.get_result()


def test_what_explain_tells(server: Served) -> None:
    default, second = explained(server, DELAYING)["policy"]["levels"]
    assert default == {
        "level": "default",
        "timeout_us": 60_000_000,
        "timeout_action": "DELAY",
        "allow_timeout_override": True,
        "max_queue_requests": 0,
    }
    assert (second["level"], second["max_queue_requests"]) == ("2", 1)
    assert "levels" not in explained(server, "puppet")["policy"]
