"""Models that ask for GPUs that no machine has, and one whose backend has something else in place of what it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from penstock.cli import main
from served import FRONTS, Served
from served_models import XY, write_model

pytestmark = [pytest.mark.e2e, pytest.mark.extension("gpu_placement")]

SAYS = "there is no plan of it, so NumPy runs it"


@pytest.fixture(scope="module", params=FRONTS)
def placed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of three models, one of which can't be loaded."""
    folder = tmp_path_factory.mktemp("placed")
    write_model(folder / "makeshift", "makeshift", None)
    # no machine has so many
    write_model(folder / "auto", "mirror", f"{XY}\ninstance_group [ {{ gpus: [ 99 ] }} ]")
    write_model(
        folder / "gpu", "mirror", f"{XY}\ninstance_group [ {{ kind: KIND_GPU gpus: [ 99 ] }} ]"
    )
    served = Served(folder, request.param)
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture
def http(placed: Served) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(placed.http, concurrency=8) as client:
        yield client


@pytest.fixture
def rpc(placed: Served) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(placed.grpc) as client:
        yield client


def test_over_http(http: Any) -> None:
    metadata = http.get_model_metadata("makeshift")
    assert (metadata["platform"], metadata["properties"]) == ("python", {"fallback": SAYS})
    parameters = http.get_model_config("makeshift")["parameters"]
    assert parameters["penstock_fallback"]["string_value"] == SAYS
    index = {line["name"]: line for line in http.get_model_repository_index()}
    assert (index["makeshift"]["state"], index["makeshift"]["reason"]) == ("READY", SAYS)
    assert index["makeshift"]["devices"] == "cpu"
    assert index["auto"]["state"] == "READY"
    assert index["gpu"]["state"] == "UNAVAILABLE"
    assert index["gpu"]["reason"].startswith("instance_group[0] has kind KIND_GPU, but ")


def test_over_grpc(rpc: Any) -> None:
    assert rpc.get_model_metadata("makeshift").platform == "python"
    config = rpc.get_model_config("makeshift").config
    assert config.parameters["penstock_fallback"].string_value == SAYS
    lines = {line.name: line for line in rpc.get_model_repository_index().models}
    assert (lines["makeshift"].state, lines["makeshift"].reason) == ("READY", SAYS)
    assert lines["gpu"].state == "UNAVAILABLE"


def test_the_log_says_so_once(placed: Served) -> None:
    assert placed.log.count(f"'makeshift' version 1 does not run as asked for: {SAYS}") == 1
    assert placed.log.count("'auto' version 1 does not run as asked for: ") == 1


def test_metrics(placed: Served) -> None:
    found = {
        name for name, value in placed.metrics().items() if name.startswith("penstock_model_fall")
    }
    assert found == {
        'penstock_model_fallback{model="makeshift",reason="backend",version="1"}',
        'penstock_model_fallback{model="auto",reason="device",version="1"}',
    }


def test_the_command_line_shows_it(placed: Served, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://{placed.http}"
    assert main(["models", "list", "--json", "--url", url]) == 0
    lines = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert (lines["makeshift"]["reason"], lines["makeshift"]["devices"]) == (SAYS, "cpu")
    assert main(["models", "explain", "makeshift", "--url", url]) == 0
    assert "cpu" in capsys.readouterr().out


def x(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1)


def ask(client: Any, value: float) -> tuple[float, int]:
    given = tritonclient.http.InferInput("X", [1, 1], "FP32")
    given.set_data_from_numpy(x(value))
    answer = client.infer("makeshift", [given])
    return float(answer.as_numpy("Y")[0, 0]), int(answer.as_numpy("ROWS")[0, 0])


def test_batches_that_do_not_fit_are_answered_all_the_same(http: Any) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda value: ask(http, value), range(8)))
    assert [y for y, _ in answers] == [2.0 * value for value in range(8)]
    assert all(rows <= 2 for _, rows in answers)


def test_a_request_that_does_not_fit_says_so(rpc: Any) -> None:
    given = tritonclient.grpc.InferInput("X", [3, 1], "FP32")
    given.set_data_from_numpy(x(1, 2, 3))
    with pytest.raises(
        InferenceServerException, match="out of GPU memory: this request alone, of 3"
    ):
        rpc.infer("makeshift", [given])
    assert rpc.is_model_ready("makeshift")
