"""A model for TensorRT on a server without a GPU: ONNX Runtime answers in its place, and clients are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import tensorrt_models
from served import FRONTS, Served

pytestmark = [pytest.mark.e2e, pytest.mark.extension("tensorrt")]


REASON = "TensorRT needs a GPU, and this instance runs on the CPU: ONNX Runtime runs model.onnx in its place"


@pytest.mark.parametrize("front", FRONTS)
def test_onnx_runtime_runs_it_in_tensorrts_place(
    front: str, tmp_path: Path, serve: Callable[..., Served]
) -> None:
    folder = tmp_path / "models" / "network"
    tensorrt_models.write(folder)
    with (folder / "config.pbtxt").open("a") as file:
        file.write("instance_group [ { kind: KIND_CPU } ]\n")
    served = serve(folder.parent, front).wait_ready()
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    for module, address in ((tritonclient.http, served.http), (tritonclient.grpc, served.grpc)):
        with module.InferenceServerClient(address) as client:
            inputs = [module.InferInput(name, a.shape, "FP32") for name in ("A", "B")]
            for each in inputs:
                each.set_data_from_numpy(a)
            answer = client.infer("network", inputs)
            np.testing.assert_array_equal(answer.as_numpy("SUM"), a + a)
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        metadata: Any = client.get_model_metadata("network", as_json=True)
        assert metadata["platform"] == "onnxruntime_onnx"
        config: Any = client.get_model_config("network", as_json=True)
        assert REASON in config["config"]["parameters"]["penstock_fallback"]["string_value"]
    with tritonclient.http.InferenceServerClient(served.http) as client:
        metadata = client.get_model_metadata("network")
        assert metadata["platform"] == "onnxruntime_onnx"
        assert metadata["properties"]["fallback"] == REASON
        assert client.get_model_config("network")["backend"] == "tensorrt"
    assert f"does not run as asked for: {REASON}" in served.log
