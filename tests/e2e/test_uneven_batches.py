"""Requests of different lengths run in one batch: ragged inputs, and padding to buckets, over both protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from penstock.types import DATATYPES, Array
from puppets import Gate, told
from served import FRONTS, Served
from served_models import PUPPET, write_model
from uneven_models import (
    PADDED_MODELS,
    RAGGED_MODELS,
    mean_and_scores,
    sums_and_doubles,
    write_uneven,
)

pytestmark = pytest.mark.e2e

ROWS = 4
FOUR_AT_ONCE = f"""
dynamic_batching {{ preferred_batch_size: [ {ROWS} ] max_queue_delay_microseconds: 60000000 }}
"""
"""Four rows run as soon as they are there, fewer wait: who is answered at all was in one batch with the others."""

Infer = Any
"""`infer(model, arrays)` sends a request for each of the arrays, all at once → their outputs by name, in order."""


@pytest.fixture(scope="module", params=FRONTS)
def uneven(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of models that take requests of different shapes together."""
    folder = tmp_path_factory.mktemp("uneven")
    write_uneven(folder, FOUR_AT_ONCE)
    puppet = PUPPET.replace("dims: [ -1 ] } ]", "dims: [ -1 ] allow_ragged_batch: true } ]", 1)
    write_model(folder / "puppet", "puppet", f"max_batch_size: 8\ndynamic_batching {{ }}\n{puppet}")
    served = Served(folder, request.param)
    try:
        yield served.wait_ready()
    finally:
        served.close()


@pytest.fixture(params=["http", "grpc"])
def infer(request: pytest.FixtureRequest, uneven: Served) -> Iterator[Infer]:
    """NVIDIA's clients."""
    module: Any = tritonclient.http if request.param == "http" else tritonclient.grpc
    address = uneven.http if request.param == "http" else uneven.grpc
    options = {"concurrency": ROWS} if request.param == "http" else {}

    with module.InferenceServerClient(address, **options) as client:

        def send(model: str, name: str, arrays: Sequence[Array]) -> list[Mapping[str, Array]]:
            waiting = [_start(client, module, model, name, array) for array in arrays]
            return [_outputs(each.result(30)) for each in waiting]

        yield send


class _Now:
    """An answer of HTTP's client, which has a `get_result`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def result(self, timeout_s: float) -> Any:
        return self._handle.get_result(timeout=timeout_s)


def _start(client: Any, module: Any, model: str, name: str, array: Array) -> Any:
    tensor = module.InferInput(name, array.shape, DATATYPES[array.dtype])
    tensor.set_data_from_numpy(array)
    if module is tritonclient.http:
        return _Now(client.async_infer(model, [tensor]))
    future: Future[Any] = Future()

    def done(result: Any, error: Exception | None) -> None:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    client.async_infer(model, [tensor], done)
    return future


def _outputs(result: Any) -> dict[str, Array]:
    response = result.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [each["name"] if isinstance(each, dict) else each.name for each in outputs]
    return {name: result.as_numpy(name) for name in names}


def check_all(
    answers: Sequence[Mapping[str, Array]], expected: Sequence[Mapping[str, Array]]
) -> None:
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(answer[name], array, strict=True)


def executions(server: Served, model: str) -> tuple[int, int, int]:
    """How many ran, how many rows they had, and how many of ROWS rows there were among them."""
    stats = server.statistics(model)
    full = sum(
        size["compute_infer"]["count"]
        for size in stats["batch_stats"]
        if size["batch_size"] == ROWS
    )
    return stats["execution_count"], stats["inference_count"], full


@pytest.mark.extension("ragged_batching")
@pytest.mark.parametrize("model", RAGGED_MODELS)
def test_ragged_requests_run_in_one_batch(uneven: Served, infer: Infer, model: str) -> None:
    runs, rows, full = executions(uneven, model)
    shapes = ((1, 3), (1, 0), (2, 5))
    arrays = [np.arange(np.prod(s), dtype=np.float32).reshape(s) + 1 for s in shapes]
    check_all(infer(model, "X", arrays), [sums_and_doubles(array) for array in arrays])
    assert executions(uneven, model) == (runs + 1, rows + ROWS, full + 1)


@pytest.mark.extension("padded_buckets")
@pytest.mark.parametrize("model", PADDED_MODELS)
def test_requests_of_one_bucket_run_in_one_batch(uneven: Served, infer: Infer, model: str) -> None:
    runs, rows, full = executions(uneven, model)
    arrays = [np.arange(length)[np.newaxis] % 15 for length in (5, 8, 6, 7)]
    check_all(infer(model, "TOKENS", arrays), [mean_and_scores(array) for array in arrays])
    assert executions(uneven, model) == (runs + 1, rows + ROWS, full + 1)


@pytest.mark.extension("ragged_batching")
def test_tritons_class_gets_ragged_requests_together(uneven: Served, tmp_path: Path) -> None:
    with (
        grpc.insecure_channel(uneven.grpc) as channel,
        Gate(tmp_path, uneven, channel, "puppet") as held,
    ):
        arrays = [np.full((1, length), length, np.float32) for length in (1, 7, 0, 3)]
        waiting = [held.send(array) for array in arrays]
        held.wait_queued(len(arrays))
        held.open()
        answers = [future.result(30) for future in waiting]
    for array, answer in zip(arrays, answers, strict=True):
        assert told(answer)["requests"] == len(arrays)
        assert tuple(answer.outputs[0].shape) == array.shape
        assert answer.raw_output_contents[0] == array.tobytes()


@pytest.mark.extension("padded_buckets")
@pytest.mark.parametrize("model", PADDED_MODELS)
def test_clients_never_see_the_mask(uneven: Served, model: str) -> None:
    metadata = uneven.get(f"/v2/models/{model}").json
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["TOKENS"]
    config = uneven.get(f"/v2/models/{model}/config").json
    assert [tensor["name"] for tensor in config["input"]] == ["TOKENS"]
    assert config["parameters"]["padding.TOKENS.mask"] == {"string_value": "MASK"}
    with tritonclient.grpc.InferenceServerClient(uneven.grpc) as client:
        found: Any = client.get_model_metadata(model)
        assert [tensor.name for tensor in found.inputs] == ["TOKENS"]
    tokens = {"name": "TOKENS", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    mask = {"name": "MASK", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}
    refused = uneven.infer(model, {"inputs": [tokens, mask]})
    assert refused.status == 400
    assert "unexpected inference input 'MASK'" in refused.error


@pytest.mark.extension("ragged_batching")
def test_batch_inputs_are_shown_as_they_were_set(uneven: Served) -> None:
    metadata = uneven.get("/v2/models/ragged_onnx").json
    assert [(t["name"], t["shape"]) for t in metadata["inputs"]] == [("X", [-1, -1])]
    config = uneven.get("/v2/models/ragged_onnx/config").json
    assert config["input"][0]["allow_ragged_batch"] is True
    assert config["batch_input"] == [
        {
            "kind": "BATCH_ITEM_SHAPE_FLATTEN",
            "target_name": ["LENGTHS"],
            "data_type": "TYPE_INT32",
            "source_input": ["X"],
        }
    ]
    assert config["batch_output"][0]["target_name"] == ["DOUBLED"]
