"""What ends sequences against their clients' will, and that these are told: crashes, reloads, full queues."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from served import Served
from stateful_models import write_accumulator, write_tally
from supervised import eventually
from talkers import PROTOCOLS, bad_request, start_step, talker, unavailable

pytestmark = [pytest.mark.e2e, pytest.mark.extension("sequence")]

EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
ENDED = "penstock_ended_sequences_total"
OLDEST = "oldest { max_candidate_sequences: 4 }"
START = "must specify the START flag on the first request of the sequence"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A tally with two workers, and an accumulator."""
    pair = "instance_group [ { count: 2 kind: KIND_CPU } ]"
    write_tally(tmp_path / "models" / "tally", OLDEST, more=pair)
    write_accumulator(tmp_path / "models" / "sums", "direct { }")
    return tmp_path / "models"


def test_a_workers_crash_ends_its_sequences_and_their_clients_are_told(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front).wait_ready()
    for protocol in PROTOCOLS:
        with talker(server, protocol, "tally") as client:
            victim, survivor = (client.told(1, number, "<")["pid"] for number in (1, 2))
            lost = server.metric(ENDED, "tally", reason="lost")
            os.kill(victim, signal.SIGKILL)
            wait_lost(server, lost + 1)
            for flags in ("", ">"):
                assert client.refusal(1, 1, flags) == (
                    unavailable(protocol),
                    "sequence 1 of model 'tally' was lost: the worker ended: killed by SIGKILL; start it again",
                )
            assert client.told(1, 2)["pid"] == survivor
            assert client.send(5, 1, "<") == 5
            assert client.send(1, 1, ">") == 6
            assert client.send(1, 2, ">") == 3
        eventually(lambda: len(instances(server)) == 2, "no new worker")


def wait_lost(server: Served, count: float) -> None:
    """Until so many sequences were lost."""
    eventually(lambda: server.metric(ENDED, "tally", reason="lost") == count, "not lost")


def test_requests_under_way_in_a_crash_are_not_run_again(
    front: str, serve: Callable[..., Served], models: Path, tmp_path: Path
) -> None:
    server = serve(models, front).wait_ready()
    started = tmp_path / "started"
    with grpc.insecure_channel(server.grpc) as channel:
        wait = {"started": str(started), "wait_for": str(tmp_path / "never")}
        running = start_step(channel, "tally", 1, "<", **wait)
        eventually(started.exists, "it does not run")
        waiting = start_step(channel, "tally", 1)
        wait_queued(server, 1)
        again = start_step(channel, "tally", 1, "<>")
        wait_queued(server, 2)
        started.unlink()
        (victim,) = {int(line["name"].split()[1]) for line in busy(server)}
        os.kill(victim, signal.SIGKILL)
        for future in (running, waiting):
            with pytest.raises(
                grpc.RpcError, match="sequence 1 of model 'tally' was lost"
            ) as caught:
                future.result(30)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        # it begins anew, so nothing is lost
        assert again.result(30).model_name == "tally"
        assert not started.exists()


def instances(server: Served) -> list[dict[str, str]]:
    """The workers that take part."""
    told = server.get("/v2/models/tally/explain")
    lines: list[dict[str, str]] = told.json["instances"] if told.status == 200 else []
    return lines


def busy(server: Served) -> list[dict[str, str]]:
    """Those that run something."""
    return [line for line in instances(server) if line["state"] == "busy"]


def wait_queued(server: Served, count: int) -> None:
    """Until so many requests wait."""
    pending = "nv_inference_pending_request_count"
    eventually(lambda: server.metric(pending, "tally") == count, f"{count} do not wait")


def test_a_model_that_dies_of_a_request_ends_only_that_workers_sequences(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front).wait_ready()
    with talker(server, "http", "tally") as client:
        client.send(1, 1, "<")
        client.send(1, 2, "<")
        status, text = client.refusal(1, 1, die=True)
        assert (status, "was lost: the worker ended: killed by SIGKILL" in text) == ("503", True)
        assert client.send(1, 2, ">") == 2
        # no request is refused for what another one did: the sequence may have been the reason
        assert client.send(3, 1, "<>") == 3


def test_after_a_crash_of_the_gateway_sequences_start_again(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front).wait_ready()
    for model in ("tally", "sums"):
        with talker(server, "http", model) as client:
            client.send(1, 1, "<")
    before = server.gateway
    os.kill(before, signal.SIGKILL)
    eventually(lambda: all_ready(server), "not ready again")
    for model in ("tally", "sums"):
        with talker(server, "http", model) as client:
            assert START in client.refusal(1, 1)[1]
            assert client.send(2, 1, "<") == 2
            assert client.send(2, 1, ">") == 4


def all_ready(server: Served) -> bool:
    try:
        return all(
            server.get(f"/v2/models/{name}/ready").status == 200 for name in ("tally", "sums")
        )
    except OSError:
        return False


def test_a_model_loaded_anew_lets_its_sequences_end(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front, *EXPLICIT).wait_ready()
    with (
        talker(server, "http", "tally") as client,
        talker(server, "grpc", "tally") as other,
        ThreadPoolExecutor(1) as pool,
    ):
        old = client.told(1, "old", "<")["pid"]
        old_workers = set(server.workers("tally"))
        loading = pool.submit(server.request, "POST", "/v2/repository/models/tally/load")
        eventually(
            lambda: client.told(1, "probe", "<>")["pid"] not in old_workers,
            "no new worker takes part",
        )
        assert client.told(1, "old")["pid"] == old
        assert other.told(1, "old")["pid"] == old
        new = client.told(1, "new", "<")["pid"]
        assert new not in old_workers
        assert not loading.done()
        assert client.send(1, "old", ">") == 4
        assert loading.result(30).status == 200
        assert old_workers.isdisjoint(server.workers("tally"))
        assert client.told(1, "new", ">")["pid"] == new
        assert START in client.refusal(1, "old")[1]


def test_sequences_that_outlive_the_grace_of_a_reload_are_lost_and_their_clients_are_told(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front, *EXPLICIT, "--exit-timeout-secs=1").wait_ready()
    for protocol in PROTOCOLS:
        with talker(server, protocol, "sums") as client:
            client.send(1, 1, "<")
            assert server.request("POST", "/v2/repository/models/sums/load").status == 200
            assert client.refusal(1, 1) == (
                unavailable(protocol),
                "sequence 1 of model 'sums' was lost: the model was loaded anew, and its old workers had to go;"
                " start it again",
            )
            assert client.send(7, 1, "<>") == 7


def test_an_unloaded_model_takes_its_sequences_with_it(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front, *EXPLICIT).wait_ready()
    with talker(server, "http", "sums") as client:
        client.send(1, 1, "<")
        assert server.request("POST", "/v2/repository/models/sums/unload").status == 200
        assert "'sums' has no available versions" in client.refusal(1, 1)[1]
        assert server.request("POST", "/v2/repository/models/sums/load").status == 200
        assert START in client.refusal(1, 1)[1]


def test_a_full_backlog_refuses_and_tells_so(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    write_tally(tmp_path / "models" / "tally", "direct { }", max_batch_size=1)
    server = serve(tmp_path / "models", front, "--max-queue-requests=2").wait_ready()
    with grpc.insecure_channel(server.grpc) as channel:
        start_step(channel, "tally", 1, "<").result(30)
        waiting = [start_step(channel, "tally", number, "<>") for number in (2, 3)]
        wait_queued(server, 2)
        for protocol in PROTOCOLS:
            with talker(server, protocol, "tally") as client:
                assert client.refusal(1, 4, "<") == (
                    unavailable(protocol),
                    "Exceeds maximum queue size: model 'tally' has 2 requests waiting",
                )
        # what frees the slot gets in when one of them is gone
        waiting[0].cancel()
        wait_queued(server, 1)
        start_step(channel, "tally", 1, ">").result(30)
        waiting[1].result(30)
    assert server.metric("penstock_refused_requests_total", "tally", reason="queue_full") == 2


def test_a_configuration_that_can_not_be_served_says_why(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    write_tally(tmp_path / "models" / "tally", "oldest { }")
    server = serve(tmp_path / "models", front).wait_ready()
    reason = server.index()["tally", ""]["reason"]
    assert "sequence_batching.oldest.max_candidate_sequences is 0; expected 1 or more" in reason


def test_a_client_that_is_told_of_a_bad_request_hears_it_as_one(
    front: str, serve: Callable[..., Served], models: Path
) -> None:
    server = serve(models, front).wait_ready()
    for protocol in PROTOCOLS:
        with talker(server, protocol, "sums") as client:
            assert client.refusal(1, "x" * 129, "<")[0] == bad_request(protocol)
