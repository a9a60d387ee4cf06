"""`model_warmup` on a running server. It is the worker's work, so one front tells all."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from served import HttpAnswer, Served, json_request
from served_models import XY, write_config, write_model
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("warmup")]

BATCHED = f"max_batch_size: 4\ndynamic_batching {{ }}\n{XY}"
ZEROS = 'inputs { key: "X" value: { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } }'
TWO_SAMPLES = f"""
    model_warmup [
      {{ name: "pairs" batch_size: 2 count: 3 {ZEROS} }},
      {{
        name: "from a file" batch_size: 1
        inputs {{ key: "X" value: {{ data_type: TYPE_FP32 dims: [ 3 ] input_data_file: "x" }} }}
      }}
    ]
"""
ONE_SAMPLE = f'model_warmup [ {{ name: "one" batch_size: 1 {ZEROS} }} ]'


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    """The folder of the model `counted`, which has a configuration yet to come."""
    folder = tmp_path / "models" / "counted"
    write_model(folder, "counted", None)
    return folder


@pytest.fixture
def explicit(serve: Callable[..., Served], counted: Path) -> Callable[[], Served]:
    """Starts a server that has loaded nothing yet."""
    flags = ("--model-control-mode=explicit",)
    return lambda: serve(counted.parent, "grpcio", *flags).wait_ready()


def load(served: Served) -> HttpAnswer:
    """The answer to loading the model."""
    return served.request("POST", "/v2/repository/models/counted/load")


def executions(folder: Path) -> list[str]:
    """For each execution so far the rows of its requests."""
    file = folder / "executions"
    return file.read_text().splitlines() if file.exists() else []


def write_data(folder: Path, values: list[float]) -> None:
    """The data file of TWO_SAMPLES."""
    (folder / "warmup").mkdir(exist_ok=True)
    (folder / "warmup" / "x").write_bytes(np.array(values, "<f4").tobytes())


def test_each_instance_runs_all_samples_before_it_serves(
    counted: Path, front: str, serve: Callable[..., Served]
) -> None:
    group = "instance_group [ { count: 2 kind: KIND_CPU } ]"
    write_config(counted, f'backend: "python"\n{BATCHED}{group}{TWO_SAMPLES}')
    write_data(counted, [1, 2, 3])
    served = serve(counted.parent, front).wait_ready()
    assert sorted(executions(counted)) == ["1"] * 2 + ["1 1"] * 6
    statistics = served.statistics("counted")
    assert (statistics["inference_count"], statistics["execution_count"]) == (0, 0)
    answer = served.infer("counted", json_request(1.0, 2.0))
    assert answer.json["outputs"][0]["data"] == [2, 4]
    assert len(executions(counted)) == 9


def test_a_model_is_ready_only_when_it_is_warm(
    counted: Path, explicit: Callable[[], Served]
) -> None:
    write_config(counted, f'backend: "python"\n{BATCHED}{ONE_SAMPLE}')
    os.mkfifo(counted / "gate")
    served = explicit()
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(load, served)
        try:
            eventually(lambda: executions(counted) == ["1"], "no warm-up")
            assert served.get("/v2/models/counted/ready").status == 400
            assert served.index()["counted", "1"]["state"] == "LOADING"
            assert not loading.done()
        finally:
            (counted / "gate").write_bytes(b"go")
        assert loading.result(30).status == 200
    assert served.get("/v2/models/counted/ready").status == 200


def test_a_failed_warm_up_is_a_failed_load_with_its_reason(
    counted: Path, explicit: Callable[[], Served]
) -> None:
    write_config(counted, f'backend: "python"\n{BATCHED}{TWO_SAMPLES}')
    write_data(counted, [1, 2])
    served = explicit()
    reason = "warm-up sample 'from a file' failed: warmup/x has 8 bytes; expected 12 for FP32 of dims [3]"
    answer = load(served)
    assert answer.status == 400
    assert reason in answer.error
    line = served.index()["counted", "1"]
    assert (line["state"], line["reason"]) == ("UNAVAILABLE", reason)
    eventually(lambda: not served.workers("counted"), "the worker is left")
    write_data(counted, [1, 2, 3])
    assert load(served).status == 200


def test_a_mistake_in_the_block_names_its_line(
    counted: Path, explicit: Callable[[], Served]
) -> None:
    write_config(counted, 'backend: "python"\n' + BATCHED + ONE_SAMPLE.replace("[ 3 ]", "[ 3, 1 ]"))
    answer = load(explicit())
    assert answer.status == 400
    assert "inputs['X'].dims are [3, 1]; expected [-1], which the input has" in answer.error
    assert "config.pbtxt:" in answer.error
    assert executions(counted) == []


def test_what_is_served_goes_on_when_its_successor_fails_its_warm_up(
    counted: Path, explicit: Callable[[], Served]
) -> None:
    write_config(counted, f'backend: "python"\n{BATCHED}{ONE_SAMPLE}')
    served = explicit()
    assert load(served).status == 200
    (worker,) = served.workers("counted")
    source = (counted / "1" / "model.py").read_text()
    (counted / "2").mkdir()
    (counted / "2" / "model.py").write_text(source.replace("2 * a", "a.astype('f8')"))
    answer = load(served)
    assert answer.status == 400
    assert "warm-up sample 'one' failed: " in answer.error
    assert "output 'Y': the configuration says FP32, the model gave FP64" in answer.error
    answer = served.infer("counted", json_request(4.0))
    assert (answer.json["model_version"], answer.json["outputs"][0]["data"]) == ("1", [8])
    eventually(lambda: served.workers("counted") == [worker], "a worker is left")
