"""The response cache, as clients of both protocols see it: what hits, what misses, and what is run once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from grpc_calls import infer, infer_request
from model_files import write_onnx_identity
from penstock.types import Array
from puppets import Gate, row, told
from served import FRONTS, Served, json_tensor
from served_models import LABELS, PUPPET, write_config, write_model
from shared_regions import PROTOCOLS, Client, region
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("response_cache")]

CACHED = "response_cache { enable: true }"
SIZE = 1 << 20


def write_models(folder: Path) -> None:
    """A puppet, classes with labels, and a puppet that is not cached."""
    batched = "max_batch_size: 8\ndynamic_batching { }"
    write_model(folder / "puppet", "puppet", f"{batched}\n{CACHED}\n{PUPPET}")
    write_model(folder / "plain", "puppet", f"{batched}\n{PUPPET}")
    write_onnx_identity(folder / "classes", "FP32", ["batch", "n"])
    (folder / "classes" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    write_config(
        folder / "classes",
        f"""
        backend: "onnxruntime"
        max_batch_size: 4
        {CACHED}
        input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }} ]
        output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] label_filename: "labels.txt" }} ]
        """,
    )


@pytest.fixture(scope="module", params=FRONTS)
def caching(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server with a cache. At its end nothing may be left."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    flags = (
        f"--cache-config=local,size={SIZE}",
        "--allow-client-shm",
        "--tenant-header=x-tenant",
        "--model-control-mode=explicit",
        "--load-model=*",
    )
    served = Served(folder, request.param, *flags)
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture
def channel(caching: Served) -> Iterator[grpc.Channel]:
    """A bare gRPC channel."""
    with grpc.insecure_channel(caching.grpc) as channel:
        yield channel


@pytest.fixture(params=PROTOCOLS)
def client(caching: Served, request: pytest.FixtureRequest) -> Iterator[Client]:
    """tritonclient, over each protocol."""
    with Client(caching, request.param) as client:
        yield client


class Counts:
    """What a model has counted since."""

    def __init__(self, server: Served, model: str) -> None:
        self._server, self._model = server, model
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        told = self._server.statistics(self._model)
        stats = told["inference_stats"]
        return {
            "executions": told["execution_count"],
            "successes": stats["success"]["count"],
            "failures": stats["fail"]["count"],
            "computed": stats["compute_infer"]["count"],
            "hits": stats["cache_hit"]["count"],
            "misses": stats["cache_miss"]["count"],
        }

    @property
    def new(self) -> dict[str, int]:
        """Of what is not zero."""
        changes = {name: count - self._before[name] for name, count in self._now().items()}
        return {name: change for name, change in changes.items() if change}


MISS = {"executions": 1, "successes": 1, "computed": 1, "misses": 1}
HIT = {"successes": 1, "hits": 1}
_values = iter(range(1, 1 << 20))


def fresh(columns: int = 2) -> Array:
    """A row that nobody has sent before."""
    return np.full((1, columns), next(_values), np.float32)


def ask(client: Client, array: Array, model: str = "puppet", **options: Any) -> Any:
    """The result of a request for all outputs."""
    return client.infer(model, [client.sent("X", "FP32", array)], [], **options)


def test_what_one_protocol_asked_the_other_is_answered(caching: Served) -> None:
    with Client(caching, "http") as http, Client(caching, "grpc") as rpc:
        for first, second in ((http, rpc), (rpc, http)):
            array = fresh()
            counts = Counts(caching, "puppet")
            ask(first, array, request_id="one")
            assert counts.new == MISS
            counts = Counts(caching, "puppet")
            result = ask(second, array, request_id="two")
            assert counts.new == HIT
            assert np.array_equal(result.as_numpy("Y"), array)
            # it is the first one's answer, under the second one's id
            assert b'"id": "one"' in result.as_numpy("TOLD").item()
            response = result.get_response()
            assert (response["id"] if isinstance(response, dict) else response.id) == "two"


def test_json_hits_what_came_as_binary(caching: Served) -> None:
    array = fresh()
    with Client(caching, "http") as client:
        ask(client, array)
    counts = Counts(caching, "puppet")
    answer = caching.infer("puppet", {"inputs": [json_tensor("X", array)]}, x_tenant="")
    assert answer.json["outputs"][0]["data"] == array.ravel().tolist()
    assert counts.new == HIT


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"other": 1}},
        {"headers": {"x-tenant": "another"}},
        {"outputs": ["Y"]},
        {"shape": (2, 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_differs_is_run(caching: Served, client: Client, change: dict[str, Any]) -> None:
    array = fresh()
    ask(client, array)
    counts = Counts(caching, "puppet")
    # tritonclient writes into the headers that it is given
    options = deepcopy(change)
    outputs = [client.output(name) for name in options.pop("outputs", [])]
    array = array.reshape(options.pop("shape", array.shape))
    result = client.infer("puppet", [client.sent("X", "FP32", array)], outputs, **options)
    assert np.array_equal(result.as_numpy("Y"), array)
    assert counts.new == MISS


def test_what_is_for_the_queue_makes_no_difference(caching: Served, client: Client) -> None:
    array = fresh()
    ask(client, array)
    counts = Counts(caching, "puppet")
    ask(client, array, priority=1, timeout=5_000_000)
    assert counts.new == HIT
    with pytest.raises(InferenceServerException, match="priority"):
        ask(client, array, parameters={"priority": -1})


def test_models_that_don_t_ask_for_it_are_not_cached(caching: Served, client: Client) -> None:
    array = fresh()
    counts = Counts(caching, "plain")
    for _ in range(2):
        ask(client, array, "plain")
    assert counts.new == {"executions": 2, "successes": 2, "computed": 2}
    assert not [sample for sample in caching.metrics() if "_cache_" in sample and "plain" in sample]


@pytest.mark.extension("classification")
def test_classes_are_made_of_cached_answers(caching: Served, client: Client) -> None:
    array = np.array([[next(_values), -1, 0]], np.float32)
    ask(client, array, "classes")
    counts = Counts(caching, "classes")
    for count in (1, 2):
        wanted = client.module.InferRequestedOutput("Y", class_count=count)
        result = client.infer("classes", [client.sent("X", "FP32", array)], [wanted])
        classes = [text.split(b":")[1:] for text in result.as_numpy("Y").ravel()]
        assert classes == [[b"0", b"zero"], [b"2", b"two"]][:count]
    assert counts.new == {
        # which outputs are asked for is part of the question
        "executions": 1,
        "computed": 1,
        "misses": 1,
        "successes": 2,
        "hits": 1,
    }


@pytest.mark.extension("system_shared_memory")
def test_tensors_in_shared_memory(caching: Served, client: Client) -> None:
    array = fresh(2048)
    with region(array.nbytes) as there, region(array.nbytes) as back:
        for made in (there, back):
            made.register(client.client)
        there.put(array)
        inputs = [client.input("X", "FP32", array.shape, there.name, array.nbytes)]
        outputs = [client.output("Y", back.name, array.nbytes)]
        counts = Counts(caching, "classes")
        client.infer("classes", inputs, outputs)
        assert counts.new == MISS
        back.put(np.zeros_like(array))
        counts = Counts(caching, "classes")
        result = client.infer("classes", inputs, outputs)
        assert client.place(result, "Y") == (back.name, 0, array.nbytes)
        assert np.array_equal(back.get("FP32", array.shape), array)
        # and those that come with the request are the same
        result = client.infer("classes", [client.sent("X", "FP32", array)], [client.output("Y")])
        assert np.array_equal(result.as_numpy("Y"), array)
        assert counts.new == {"successes": 2, "hits": 2}
        # what lies there is looked at each time
        there.put(2 * array)
        client.infer("classes", inputs, outputs)
        assert np.array_equal(back.get("FP32", array.shape), 2 * array)
        counts = Counts(caching, "classes")
        with pytest.raises(InferenceServerException, match="should be at least"):
            client.infer("classes", inputs, [client.output("Y", back.name, 8)])
        assert counts.new == {"failures": 1}
        client.client.unregister_system_shared_memory()


def test_large_tensors(caching: Served, client: Client) -> None:
    """Such that are hashed beside the event loop, and fit into no cache."""
    array = fresh(1 << 19)
    counts = Counts(caching, "classes")
    for _ in range(2):
        assert np.array_equal(ask(client, array, "classes").as_numpy("Y"), array)
    assert counts.new == {name: 2 * count for name, count in MISS.items()}
    assert caching.metric("penstock_cache_bytes", "classes") <= SIZE


def test_the_budget_is_kept(caching: Served, client: Client) -> None:
    evicted = caching.metric("penstock_cache_evictions_total", "classes")
    arrays = [fresh(SIZE // 16) for _ in range(6)]
    for array in arrays:
        ask(client, array, "classes")
    counts = Counts(caching, "classes")
    ask(client, arrays[-1], "classes")
    assert counts.new == HIT
    ask(client, arrays[0], "classes")
    assert counts.new["misses"] == 1
    assert caching.metric("penstock_cache_evictions_total", "classes") > evicted
    used = sum(caching.metric("penstock_cache_bytes", model) for model in ("puppet", "classes"))
    told = caching.get("/v2/models/classes/explain").json["response_cache"]
    assert used == told["used_bytes"] <= told["budget_bytes"] == SIZE


def test_errors_are_not_cached(caching: Served, client: Client) -> None:
    array = fresh()
    counts = Counts(caching, "puppet")
    for _ in range(2):
        with pytest.raises(InferenceServerException, match="no luck"):
            ask(client, array, parameters={"error": "no luck"})
    assert counts.new == {"executions": 2, "failures": 2}


def test_a_model_that_is_loaded_anew_answers_anew(caching: Served, client: Client) -> None:
    array = fresh()
    before = ask(client, array).as_numpy("TOLD").item()
    assert ask(client, array).as_numpy("TOLD").item() == before
    client.client.load_model("puppet")
    assert caching.metric("penstock_cache_entries", "puppet") == 0
    counts = Counts(caching, "puppet")
    assert ask(client, array).as_numpy("TOLD").item() != before
    assert counts.new == MISS
    client.client.unload_model("puppet")
    told = caching.get("/v2/models/classes/explain").json["response_cache"]
    assert told["used_bytes"] == told["model_bytes"], "nothing of the puppet is left"
    client.client.load_model("puppet")


def test_the_metrics_say_what_the_statistics_say(caching: Served) -> None:
    stats = caching.statistics("puppet")["inference_stats"]
    for kind, counter in (("hit", "hits"), ("miss", "misses")):
        told = stats[f"cache_{kind}"]
        assert caching.metric(f"nv_cache_num_{counter}_per_model", "puppet") == told["count"]
        duration_us = caching.metric(f"nv_cache_{kind}_duration_per_model", "puppet")
        assert duration_us == told["ns"] // 1000


# ── the same, at the same time ──────────────────────────────────────────────────────────────────────────────────────


def waiting(server: Served) -> int:
    """How many requests for the puppet wait for one that is the same."""
    told = server.get("/v2/models/puppet/explain").json["response_cache"]
    count: int = told["waiting"]
    return count


def test_what_is_asked_by_many_is_run_once(
    caching: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    counts = Counts(caching, "puppet")
    coalesced = caching.metric("penstock_cache_coalesced_total", "puppet")
    with Gate(tmp_path, caching, channel, "puppet") as gate:
        parameters = {"wait_for": str(tmp_path / "open"), "started": str(tmp_path / "started")}
        others = [gate.send(parameters=parameters, id=f"other {n}") for n in range(6)]
        eventually(lambda: waiting(caching) == 6, "they don't wait")
        gate.open()
        answers = [each.result() for each in (gate.first, *others)]
    assert len({told(answer)["id"] for answer in answers}) == 1
    assert [answer.id for answer in answers] == ["", *(f"other {n}" for n in range(6))]
    assert counts.new == {"executions": 1, "computed": 1, "misses": 1, "successes": 7, "hits": 6}
    assert caching.metric("penstock_cache_coalesced_total", "puppet") == coalesced + 6
    assert waiting(caching) == 0


def test_those_who_leave_take_nothing_from_the_others(
    caching: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    """The one that it is run for is cancelled, another one's time is over."""
    counts = Counts(caching, "puppet")
    with Gate(tmp_path, caching, channel, "puppet") as gate:
        parameters = {"wait_for": str(tmp_path / "open"), "started": str(tmp_path / "started")}
        stays = gate.send(parameters=parameters)
        eventually(lambda: waiting(caching) == 1, "it doesn't wait")
        hurried = gate.send(parameters=parameters, timeout_s=0.3)
        assert hurried.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.first.cancel()
        eventually(lambda: counts.new.get("failures") == 2, "they are not gone")
        gate.open()
        assert told(stays.result())["requests"] == 1
    assert counts.new == {
        "executions": 1,
        "computed": 1,
        "misses": 1,
        "successes": 1,
        "failures": 2,
    }


def test_an_error_reaches_all_who_wait(
    caching: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    counts = Counts(caching, "puppet")
    with Gate(tmp_path, caching, channel, "puppet") as gate:
        # it runs after the gate's, or beside it in no batch
        parameters = {"error": "bad day"}
        failing = [gate.send(row(1, 2), parameters=parameters) for _ in range(3)]
        eventually(lambda: waiting(caching) == 2, "they don't wait")
    assert {each.exception().details() for each in failing} == {"bad day"}
    assert counts.new == {**MISS, "executions": 2, "failures": 3}
    # and the next one is run
    with pytest.raises(grpc.RpcError):
        infer(channel, infer_request("puppet", row(1, 2), parameters=parameters))
    assert counts.new["executions"] == 3


def test_a_crash_takes_no_waiting_request_with_it(
    caching: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, caching, channel, "puppet") as gate:
        parameters = {"wait_for": str(tmp_path / "open"), "started": str(tmp_path / "started")}
        other = gate.send(parameters=parameters)
        eventually(lambda: waiting(caching) == 1, "it doesn't wait")
        (worker,) = caching.workers("puppet")
        os.kill(worker, signal.SIGKILL)
        gate.open()
        assert told(gate.first.result())["pid"] == told(other.result())["pid"] != worker


def test_clients_that_are_gone_over_http(
    caching: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    """One that waits, over the other protocol."""
    counts = Counts(caching, "puppet")
    with Gate(tmp_path, caching, channel, "puppet") as gate:
        parameters = {"wait_for": str(tmp_path / "open"), "started": str(tmp_path / "started")}
        body = {"inputs": [json_tensor("X", row(1, 2))], "parameters": parameters}
        connection = caching.start_infer("puppet", body)
        eventually(lambda: waiting(caching) == 1, "it doesn't wait")
        connection.close()
        eventually(lambda: waiting(caching) == 0, "nobody noticed")
        gate.open()
        gate.first.result()
    assert counts.new == {**MISS, "failures": 1}
