"""Workers that die, grow, and give everything back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from grpc_calls import infer, infer_request
from puppets import Gate, row, told
from served import Served, json_request
from supervised import eventually

pytestmark = pytest.mark.e2e

LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def crash_counts(server: Served, model: str) -> float:
    """How many workers were started anew."""
    return server.metric("penstock_worker_restarts_total", model)


@pytest.mark.parametrize("model", ["puppet", "puppet_pair"])
def test_no_request_is_lost_when_workers_are_killed_under_load(
    server: Served, channel: grpc.Channel, model: str
) -> None:
    """Workers die while requests keep coming, the only one too: every request is answered, and rightly."""
    restarts, instances = crash_counts(server, model), len(server.workers(model))
    stop = threading.Event()
    wrong: list[Any] = []
    answered = [0] * 6

    def load(number: int) -> None:
        while not stop.is_set():
            array = row(number, answered[number])
            try:
                response = infer(channel, infer_request(model, array))
            except grpc.RpcError as error:
                wrong.append(error)
                return
            if response.raw_output_contents[0] != array.tobytes():
                wrong.append(response)
            answered[number] += 1

    def wait_for_load() -> None:
        enough = sum(answered) + 50
        eventually(lambda: bool(wrong) or sum(answered) > enough, "no load")

    def kill_one(number: int) -> None:
        victim = server.workers(model)[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: crash_counts(server, model) == restarts + number, "no restart")
        eventually(lambda: len(set(server.workers(model)) - {victim}) == instances, "no new worker")

    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(answered))]
    for thread in threads:
        thread.start()
    try:
        for number in (1, 2):
            wait_for_load()
            kill_one(number)
        wait_for_load()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_the_running_batch_is_run_again(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    """The only worker is killed in the middle of a batch: the next one answers it."""
    with Gate(tmp_path, server, channel, "puppet") as held:
        waiting = [held.send(row(1, 2)), held.send(row(3, 4))]
        held.wait_queued(2)
        (victim,) = server.workers("puppet")
        os.kill(victim, signal.SIGKILL)
        held.open()
        answers = [future.result(30) for future in (held.first, *waiting)]
    assert all(told(answer)["pid"] != victim for answer in answers)
    assert answers[2].raw_output_contents[0] == row(3, 4).tobytes()


def test_a_request_that_kills_stands_alone(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    """Its mates are answered; it gets the error, and the model is served on."""
    with Gate(tmp_path, server, channel, "puppet") as held:
        good = [held.send(row(1, 2)), held.send(row(3, 4))]
        bad = held.send(row(5, 6), parameters={"die": True})
        good.append(held.send(row(7, 8)))
        held.wait_queued(4)
        held.open()
        error = bad.exception(60)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "the worker process ended while it ran this request" in error.details()
        assert "SIGKILL" in error.details()
        answers = [future.result(60).raw_output_contents[0] for future in good]
    assert answers == [row(1, 2).tobytes(), row(3, 4).tobytes(), row(7, 8).tobytes()]
    eventually(
        lambda: server.infer("puppet", json_request(1.0)).status == 200, "not served any more"
    )


def test_slabs_grow_with_the_tensors(server: Served) -> None:
    array = np.arange(16 << 20, dtype=np.float32).reshape(1, -1)
    assert array.nbytes == 64 << 20
    with grpc.insecure_channel(server.grpc, LARGE) as large:
        response = infer(large, infer_request("puppet_alone", array, outputs=["Y"]))
        assert response.raw_output_contents[0] == array.tobytes()
        small = infer(large, infer_request("puppet_alone", row(1, 2), outputs=["Y"]))
    assert small.raw_output_contents[0] == row(1, 2).tobytes()


def test_workers_cannot_outlive_the_supervisor(front: str, add_sub: Callable[..., Served]) -> None:
    """SIGKILL of the supervisor: no gateway, no worker, nothing in /dev/shm stays."""
    served = add_sub(front)
    assert len(served.processes()) >= 3
    served.process.kill()
    served.process.wait(30)
    served.check_gone()


def test_the_gateway_comes_back(front: str, add_sub: Callable[..., Served]) -> None:
    """SIGKILL of the gateway: the supervisor starts another one, which serves again."""
    served = add_sub(front)
    killed, workers = served.gateway, served.workers("add_sub")
    os.kill(killed, signal.SIGKILL)

    def serves() -> bool:
        try:
            return served.get("/v2/models/add_sub/ready").status == 200
        except OSError:
            return False

    eventually(serves, "the gateway did not come back")
    assert served.gateway != killed
    assert len(served.workers("add_sub")) == len(workers)
