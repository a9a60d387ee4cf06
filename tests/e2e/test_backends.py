"""The same network by every backend, in one server on either front: NVIDIA's clients see no difference."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from backend_cases import CASES, DIMS, FAR, MAX_BATCH_SIZE, BackendCase
from penstock.types import Array
from served import FRONTS, Served
from supervised import eventually

pytestmark = pytest.mark.e2e

PATIENCE_S = 60.0
"""Workers import large libraries, several at once."""
QUICK = [case for case in CASES if not case.slow]
SLOW = [case for case in CASES if case.slow]
PICKY = [case for case in QUICK if case.write_picky is not None]
ROWS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each case's network under its name, and `NAME_picky`."""
    folder = tmp_path_factory.mktemp("backends")
    for case in CASES:
        case.write(folder / case.name)
        if case in PICKY and case.write_picky is not None:
            case.write_picky(folder / f"{case.name}_picky")
    return folder


@pytest.fixture(scope="module", params=FRONTS)
def backends(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    """A server of all of them."""
    allowed = [f"--artifacts-allow-pickle={case.name}" for case in CASES if case.runs_code]
    flags = ("--model-control-mode=explicit", "--load-model=*", *allowed)
    served = Served(folder, request.param, *flags)
    try:
        yield served.wait_ready(PATIENCE_S)
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, backends: Served) -> Iterator[Client]:
    """NVIDIA's client of either protocol."""
    with Client(request.param, backends) as client:
        yield client


class Client:
    """What both of NVIDIA's clients can do, in one way."""

    def __init__(self, protocol: str, served: Served) -> None:
        self._library: Any = getattr(tritonclient, protocol)
        address = getattr(served, protocol)
        options = {"concurrency": 16} if protocol == "http" else {}
        self.connection = self._library.InferenceServerClient(address, **options)
        self.as_json = {} if protocol == "http" else {"as_json": True}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def infer(self, model: str, inputs: dict[str, Array], *outputs: str) -> Any:
        """The client's own answer."""
        tensors = []
        for name, array in inputs.items():
            kind = {"f4": "FP32", "i4": "INT32", "i8": "INT64"}[array.dtype.str[1:]]
            tensor = self._library.InferInput(name, array.shape, kind)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [self._library.InferRequestedOutput(name) for name in outputs]
        return self.connection.infer(model, tensors, outputs=wanted or None)


def inputs_of(rows: int, scale: float = 1) -> dict[str, Array]:
    numbers = np.arange(rows * DIMS, dtype=np.float32).reshape(rows, DIMS)
    return {"A": numbers * np.float32(scale), "B": numbers + 1}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_metadata_and_configuration(case: BackendCase, client: Client) -> None:
    found = client.connection.get_model_metadata(case.name, **client.as_json)
    tensors = [(t["name"], t["datatype"], [int(size) for size in t["shape"]])
               for t in (*found["inputs"], *found["outputs"])]  # fmt: skip
    names = ("A", "B", "SCALED", "SUM")
    assert sorted(tensors) == [(name, "FP32", [-1, DIMS]) for name in names]
    config = client.connection.get_model_config(case.name, **client.as_json)
    config = config.get("config", config)
    assert config["max_batch_size"] == MAX_BATCH_SIZE
    assert "dynamic_batching" in config


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inference(case: BackendCase, client: Client) -> None:
    inputs = inputs_of(ROWS)
    answer = client.infer(case.name, inputs)
    np.testing.assert_array_equal(answer.as_numpy("SUM"), inputs["A"] + inputs["B"])
    np.testing.assert_array_equal(answer.as_numpy("SCALED"), 2 * inputs["A"])
    one = client.infer(case.name, inputs, "SCALED")
    np.testing.assert_array_equal(one.as_numpy("SCALED"), 2 * inputs["A"])
    assert one.as_numpy("SUM") is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_requests_join_into_batches(case: BackendCase, backends: Served) -> None:
    """Each gets its own rows back, whoever it has shared a batch with."""
    with Client("grpc", backends) as client, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> None:
            inputs = inputs_of(1 + number % 2, scale=number)
            answer = client.infer(case.name, inputs)
            np.testing.assert_array_equal(answer.as_numpy("SUM"), inputs["A"] + inputs["B"])

        def joined() -> bool:
            before = backends.statistics(case.name)
            list(pool.map(ask, range(32)))
            after = backends.statistics(case.name)
            executions = after["execution_count"] - before["execution_count"]
            return bool(0 < executions < 32)

        eventually(joined, "every request ran alone")


BAD: dict[str, Callable[[], dict[str, Array]]] = {
    "dims": lambda: {**inputs_of(1), "B": np.zeros((1, DIMS + 1), np.float32)},
    "datatype": lambda: {**inputs_of(1), "B": np.zeros((1, DIMS), np.int32)},
    "missing": lambda: {"A": inputs_of(1)["A"]},
    "unknown": lambda: {**inputs_of(1), "C": inputs_of(1)["A"]},
    "no rows": lambda: inputs_of(0),
    "too many rows": lambda: inputs_of(MAX_BATCH_SIZE + 1),
    "uneven rows": lambda: {**inputs_of(1), "B": inputs_of(2)["B"]},
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused_alike(bad: str, client: Client) -> None:
    told = set()
    for case in CASES:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(case.name, BAD[bad]())
        assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
        told.add(re.sub(rf"\b{case.name}\b", "MODEL", caught.value.message()))
    assert len(told) == 1, told


@pytest.mark.parametrize("case", PICKY, ids=lambda case: case.name)
def test_a_request_that_fails_does_so_alone(case: BackendCase, backends: Served) -> None:
    def ask(client: Client, row: int) -> list[list[float]] | str:
        try:
            answer = client.infer(f"{case.name}_picky", {"X": np.array([[row]], np.int64)})
        except InferenceServerException as error:
            assert error.status() == "StatusCode.INTERNAL"
            return str(error.message())
        found: list[list[float]] = answer.as_numpy("Y").tolist()
        return found

    rows = [row % 4 if row % 5 else FAR for row in range(20)]
    with Client("grpc", backends) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(functools.partial(ask, client), rows))
    for row, answer in zip(rows, answers, strict=True):
        if row == FAR:
            assert isinstance(answer, str) and answer
        else:
            assert answer == [[row] * DIMS]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_unload_and_load(case: BackendCase, backends: Served) -> None:
    check_reload(case, backends)


@pytest.mark.parametrize("backends", ["grpcio"], indirect=True)
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.name)
def test_unload_and_load_what_takes_seconds(case: BackendCase, backends: Served) -> None:
    """By one front: all of the time goes into the worker, where no front has a part."""
    check_reload(case, backends)


def check_reload(case: BackendCase, backends: Served) -> None:
    path = f"/v2/repository/models/{case.name}"
    with Client("grpc", backends) as client:
        client.connection.unload_model(case.name)
        with pytest.raises(InferenceServerException, match=case.name):
            client.infer(case.name, inputs_of(1))
        assert backends.request("POST", f"{path}/load").status == 200
        assert client.infer(case.name, inputs_of(2)).as_numpy("SUM").shape == (2, DIMS)
