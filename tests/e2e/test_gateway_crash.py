"""The gateway is killed: another one serves soon, with the workers that were there before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from served import Served, descriptors, json_request
from served_models import XY, write_add_sub, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e

BOUND_S = 15.0
"""Far above what it takes, about 0.7 s on a machine that has nothing else to do: speed is not asserted here."""
EXPLICIT = "--model-control-mode=explicit"


class Crashes:
    """A server of models that note their `initialize` and `finalize`, and its crashes."""

    def __init__(self, served: Served, notes: Path) -> None:
        self.served = served
        self._notes = notes

    def kill(self) -> None:
        """SIGKILL to the gateway."""
        os.kill(self.served.gateway, signal.SIGKILL)

    def wait_back(self, model: str = "noted", value: float = 1.0) -> None:
        """Until the model answers, and rightly. Until then nobody may hear that it is unknown, or anything else
        than to try again."""
        began = time.monotonic()
        while (status := self.ask(model, value)) != 200:
            assert status in (None, 503), status
            assert time.monotonic() - began < BOUND_S, self.served.log
            time.sleep(0.005)

    def crash(self, model: str = "noted") -> None:
        """One whole crash."""
        self.kill()
        self.wait_back(model)

    def ask(self, model: str, value: float) -> int | None:
        """The status of an inference, None where nobody listens. A wrong answer fails the test."""
        try:
            answer = self.served.infer(model, json_request(value, value + 1))
        except OSError:
            return None
        if answer.status == 200:
            assert answer.json["outputs"][0]["data"] == [value, value + 1]
        return answer.status

    def notes(self, what: str) -> list[int]:
        """Process ids of the workers that noted it."""
        lines = self._notes.read_text().splitlines()
        return [int(pid) for name, pid in map(str.split, lines) if name == what]

    @property
    def workers(self) -> list[int]:
        """Process ids of all workers of `noted`."""
        return sorted(self.served.workers("noted"))


@pytest.fixture
def start(front: str, serve: Callable[..., Served], tmp_path: Path) -> Callable[..., Crashes]:
    """`start(*flags, instances=1)` serves the models `noted` and `add_sub`."""

    def start_one(*flags: str, instances: int = 1) -> Crashes:
        notes = tmp_path / "notes"
        config = f"""
            max_batch_size: 4
            instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
            parameters {{ key: "notes" value {{ string_value: "{notes}" }} }}
            {XY}"""
        write_model(tmp_path / "models" / "noted", "noted", config)
        write_add_sub(tmp_path / "models" / "add_sub")
        return Crashes(serve(tmp_path / "models", front, *flags).wait_ready(), notes)

    return start_one


def test_workers_go_on(start: Callable[..., Crashes]) -> None:
    """Two crashes, and no model is loaded a second time. The stop at the end reaches all."""
    server = start(instances=2)
    served = server.served
    before = server.workers, served.workers("add_sub")
    for _ in range(2):
        killed = served.gateway
        server.crash()
        eventually(lambda: served.get("/v2/health/ready").status == 200, "not ready")
        assert served.gateway != killed
        assert (server.workers, served.workers("add_sub")) == before
        assert {line["state"] for line in served.index().values()} == {"READY"}
    assert sorted(server.notes("initialize")) == server.workers
    assert served.statistics("noted")["inference_count"] >= 1
    assert served.stop() == 0
    assert sorted(server.notes("finalize")) == before[0]


def test_what_was_loaded_and_unloaded_by_request(start: Callable[..., Crashes]) -> None:
    server = start(EXPLICIT, "--load-model=add_sub")
    served = server.served
    assert served.request("POST", "/v2/repository/models/noted/load").status == 200
    assert served.request("POST", "/v2/repository/models/add_sub/unload").status == 200
    (worker,) = server.workers
    server.crash()
    eventually(lambda: served.get("/v2/health/ready").status == 200, "not ready")
    assert server.workers == [worker]
    assert served.workers("add_sub") == []
    unloaded = {"name": "add_sub", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert served.index()["add_sub", ""] == unloaded
    assert served.request("POST", "/v2/repository/models/add_sub/load").status == 200
    assert served.request("POST", "/v2/repository/models/noted/unload").status == 200
    eventually(lambda: worker not in served.processes(), "the worker is left")


def test_a_batch_that_was_running(start: Callable[..., Crashes], tmp_path: Path) -> None:
    """The worker finishes it; its answer is nobody's, and the next ones are right. One more crash meanwhile changes
    nothing."""
    server = start()
    parameters = {"started": str(tmp_path / "started"), "wait_for": str(tmp_path / "open")}
    with_gate = json_request(70.0, 71.0, parameters=parameters)
    held = server.served.start_infer("noted", with_gate)
    eventually((tmp_path / "started").exists, "the model got no request")
    (worker,) = server.workers
    server.kill()
    eventually(lambda: server.ask("noted", 1.0) == 503, "no gateway that waits for the worker")
    server.kill()
    eventually(lambda: server.ask("noted", 1.0) == 503, "no gateway that waits for the worker")
    (tmp_path / "open").touch()
    server.wait_back()
    for value in range(20):
        assert server.ask("noted", float(value)) == 200
    assert server.notes("initialize") == server.workers == [worker]
    held.close()


def test_changed_files_are_loaded_anew(start: Callable[..., Crashes], tmp_path: Path) -> None:
    server = start()
    (worker,), others = server.workers, server.served.workers("add_sub")
    with (tmp_path / "models" / "noted" / "1" / "model.py").open("a") as file:
        file.write("# another version\n")
    server.crash()
    (new,) = server.workers
    assert new != worker
    assert server.notes("initialize") == [worker, new]
    eventually(lambda: server.notes("finalize") == [worker], "the old one was not finalized")
    assert server.served.workers("add_sub") == others


def test_a_worker_that_died_meanwhile(start: Callable[..., Crashes]) -> None:
    server = start(instances=2)
    victim, other = server.workers
    # when the supervisor looks again, both are dead
    server.served.process.send_signal(signal.SIGSTOP)
    server.kill()
    os.kill(victim, signal.SIGKILL)
    server.served.process.send_signal(signal.SIGCONT)
    server.wait_back()
    eventually(lambda: len(server.workers) == 2, "no new worker")
    assert other in server.workers and victim not in server.workers
    assert len(server.notes("initialize")) == 3


def test_a_worker_that_dies_while_it_is_taken_over(
    start: Callable[..., Crashes], tmp_path: Path
) -> None:
    server = start()
    parameters = {"started": str(tmp_path / "started"), "wait_for": str(tmp_path / "never")}
    held = server.served.start_infer("noted", json_request(1.0, parameters=parameters))
    eventually((tmp_path / "started").exists, "the model got no request")
    (worker,) = server.workers
    server.kill()
    eventually(lambda: server.ask("noted", 1.0) == 503, "no gateway that waits for the worker")
    os.kill(worker, signal.SIGKILL)
    server.wait_back()
    assert server.notes("initialize") == [worker, *server.workers]
    held.close()


def test_a_stop_right_after_a_crash(start: Callable[..., Crashes]) -> None:
    server = start()
    workers = server.workers
    server.kill()
    eventually(lambda: "the gateway ended" in server.served.log, "the crash was not seen")
    assert server.served.stop() == 0
    assert server.notes("finalize") == workers


def test_crashes_leave_nothing_open(start: Callable[..., Crashes]) -> None:
    """Descriptors of supervisor and workers, and the shared memory that workers hold."""
    server = start()
    served = server.served
    server.crash()
    processes = [served.process.pid, *server.workers, *served.workers("add_sub")]
    before = {pid: descriptors(pid) for pid in processes}
    gateway = descriptors(served.gateway)
    for _ in range(3):
        server.crash()
    eventually(lambda: all(descriptors(pid) <= before[pid] for pid in processes), "more is open")
    # the connections of these very requests come and go
    eventually(lambda: descriptors(served.gateway) <= gateway + 2, "the gateway has more open")
    for pid in processes:
        slabs = Path(f"/proc/{pid}/maps").read_text().count("penstock-slab")
        assert slabs == (0 if pid == served.process.pid else 2)
