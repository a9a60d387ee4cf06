"""Which execution providers a model gets, and with which options: pure."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_files import load_spec
from penstock.backends.base import LoadSpec
from penstock.backends.onnx_providers import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    Chosen,
    choose,
    wants_tensorrt,
)
from penstock.errors import LoadFailed

ALL = (TENSORRT, CUDA, OPENVINO, CPU)
ENGINES = Path("/cache/engines")


def spec(device: str = "cpu", **config: Any) -> LoadSpec:
    return replace(load_spec(Path("/models/m"), config), device=device)


def accelerated(kind: str, name: str, **parameters: str) -> dict[str, Any]:
    accelerator = {"name": name, "parameters": parameters}
    return {"execution_accelerators": {f"{kind}_execution_accelerator": [accelerator]}}


def on_gpu(name: str, **parameters: str) -> Chosen:
    given = spec("cuda:3", optimization=accelerated("gpu", name, **parameters))
    return choose(given, ALL, ENGINES)


def test_a_cpu_runs_on_the_cpu() -> None:
    chosen = choose(spec(), ALL, None)
    assert chosen == Chosen(((CPU, {}),))
    assert not chosen.on_gpu


def test_a_gpu_runs_on_cuda_as_the_only_one_that_the_worker_sees() -> None:
    chosen = choose(spec("cuda:3"), ALL, None)
    assert chosen == Chosen(((CUDA, {"device_id": "0"}), (CPU, {})))
    assert chosen.on_gpu


def test_parameters_of_cuda_are_in_onnx_runtimes_words() -> None:
    values = {
        "cudnn_conv_algo_search": "1",
        "gpu_mem_limit": "4294967296",
        "arena_extend_strategy": "1",
        "do_copy_in_default_stream": "0",
    }
    parameters = {key: {"string_value": value} for key, value in values.items()}
    (_, options), _ = choose(spec("cuda:0", parameters=parameters), ALL, None).providers
    assert options == {
        "device_id": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "4294967296",
        "arena_extend_strategy": "kSameAsRequested",
        "do_copy_in_default_stream": "0",
    }


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_what_is_no_accelerator_is_told_on_any_device(kind: str, device: str) -> None:
    with pytest.raises(LoadFailed, match=f"{kind}_execution_accelerator: 'tensort', expected "):
        choose(spec(device, optimization=accelerated(kind, "tensort")), ALL, None)


def test_options_of_the_accelerator_cuda_win() -> None:
    chosen = on_gpu("cuda", cudnn_conv_use_max_workspace="0", device_id="0")
    assert chosen.providers[0] == (
        CUDA,
        {"device_id": "0", "cudnn_conv_use_max_workspace": "0"},
    )


def test_tensorrt_goes_first_and_keeps_its_engines() -> None:
    chosen = on_gpu(
        "tensorrt",
        precision_mode="FP16",
        max_workspace_size_bytes="1073741824",
        trt_build_heuristics_enable="true",
        trt_builder_optimization_level="4",
    )
    assert chosen.names == (TENSORRT, CUDA, CPU)
    assert chosen.providers[0][1] == {
        "device_id": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "/cache/engines",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "/cache/engines",
        "trt_fp16_enable": "True",
        "trt_max_workspace_size": "1073741824",
        "trt_build_heuristics_enable": "True",
        "trt_builder_optimization_level": "4",
    }
    assert chosen.fallback == ""


def test_what_the_configuration_says_of_caches_wins() -> None:
    options = dict(on_gpu("tensorrt", trt_engine_cache_enable="0").providers)[TENSORRT]
    assert options["trt_engine_cache_enable"] == "False"


def batched(*dims: int, **more: Any) -> dict[str, Any]:
    """The options of TensorRT's profiles for a model with inputs A [2] and B of `dims`."""
    config = {
        "optimization": accelerated("gpu", "tensorrt"),
        "max_batch_size": 8,
        "input": [
            {"name": "A", "data_type": "TYPE_FP32", "dims": [2]},
            {"name": "B", "data_type": "TYPE_FP32", "dims": list(dims)},
        ],
    }
    options = dict(choose(spec("cuda:0", **(config | more)), ALL, ENGINES).providers)[TENSORRT]
    return {key: value for key, value in options.items() if "profile" in key}


def test_one_engine_of_tensorrts_takes_all_batches() -> None:
    assert batched(3, 4) == {
        "trt_profile_min_shapes": "A:1x2,B:1x3x4",
        "trt_profile_opt_shapes": "A:8x2,B:8x3x4",
        "trt_profile_max_shapes": "A:8x2,B:8x3x4",
    }
    preferred = batched(3, dynamic_batching={"preferred_batch_size": [2, 4]})
    assert preferred["trt_profile_opt_shapes"] == "A:4x2,B:4x3"


def test_profiles_are_left_to_tensorrt_where_dims_are_free_or_given() -> None:
    given = accelerated("gpu", "tensorrt", trt_profile_max_shapes="A:4x2")
    assert batched(-1) == batched(3, max_batch_size=0) == batched(3, input=[]) == {}
    assert batched(3, optimization=given) == {"trt_profile_max_shapes": "A:4x2"}


def test_engines_of_encrypted_models_are_not_kept() -> None:
    given = spec("cuda:0", optimization=accelerated("gpu", "tensorrt"))
    assert choose(given, ALL, None).providers[0] == (TENSORRT, {"device_id": "0"})
    asked = accelerated("gpu", "tensorrt", trt_engine_cache_path="/tmp")
    with pytest.raises(LoadFailed, match=r"trt_engine_cache_path can't be had.*encrypted"):
        choose(spec("cuda:0", optimization=asked), ALL, None)


@pytest.mark.parametrize(
    ("device", "config", "available", "names", "reason"),
    [
        ("cuda:0", {}, (CPU,), (CPU,), "no CUDAExecutionProvider.*onnxruntime-gpu"),
        (
            "cuda:0",
            {"optimization": accelerated("gpu", "tensorrt")},
            (CUDA, CPU),
            (CUDA, CPU),
            "no TensorrtExecutionProvider",
        ),
        (
            "cuda:0",
            {"optimization": accelerated("gpu", "tensorrt")},
            (TENSORRT, CPU),
            (CPU,),
            "no CUDAExecutionProvider",
        ),
        (
            "cpu",
            {"optimization": accelerated("cpu", "openvino")},
            (CPU,),
            (CPU,),
            "no OpenVINOExecutionProvider.*onnxruntime-openvino",
        ),
        (
            "cpu",
            {"optimization": accelerated("gpu", "tensorrt")},
            (CPU,),
            (CPU,),
            "asks for tensorrt on a GPU, and this instance runs on the CPU",
        ),
    ],
)
def test_what_is_asked_for_and_absent_is_told(
    device: str, config: dict[str, Any], available: Any, names: Any, reason: str
) -> None:
    chosen = choose(spec(device, **config), available, ENGINES)
    assert chosen.names == names
    assert re.search(reason, chosen.fallback)


def test_openvino_runs_what_it_is_asked_to() -> None:
    given = spec(optimization=accelerated("cpu", "openvino", num_of_threads="2"))
    assert choose(given, ALL, None).providers == (
        (OPENVINO, {"device_type": "CPU", "num_of_threads": "2"}),
        (CPU, {}),
    )


def test_an_instance_that_is_put_on_the_cpu_misses_nothing() -> None:
    given = spec(
        optimization=accelerated("gpu", "tensorrt"),
        instance_group=[{"kind": "KIND_GPU"}, {"kind": "KIND_CPU"}],
    )
    assert choose(given, ALL, None).fallback == ""


@pytest.mark.parametrize(
    ("device", "optimization", "error"),
    [
        ("cuda:0", accelerated("gpu", "opengl"), "'opengl', expected tensorrt or cuda"),
        ("cpu", accelerated("cpu", "mkl"), "'mkl', expected openvino"),
        (
            "cuda:0",
            accelerated("gpu", "tensorrt", precision_mode="FP4"),
            "precision_mode is 'FP4', expected FP32 or FP16",
        ),
        (
            "cuda:0",
            accelerated("gpu", "tensorrt", trt_dla_enable="maybe"),
            "trt_dla_enable is 'maybe', expected 0, 1",
        ),
        ("cuda:0", accelerated("gpu", "tensorrt", speed="1"), "has no 'speed', expected one of"),
        ("cuda:0", accelerated("gpu", "cuda", enable_cuda_graph="1"), "expected it off"),
        ("cuda:0", accelerated("gpu", "tensorrt", trt_cuda_graph_enable="1"), "expected it off"),
    ],
)
def test_what_is_wrong_is_named(device: str, optimization: dict[str, Any], error: str) -> None:
    with pytest.raises(LoadFailed, match=error):
        choose(spec(device, optimization=optimization), ALL, ENGINES)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("cudnn_conv_algo_search", "3", r"expected 0 \(EXHAUSTIVE\) or 1 \(HEURISTIC\)"),
        ("gpu_mem_limit", "1GB", "expected a number of bytes"),
        ("do_copy_in_default_stream", "yes", "expected 0 or 1"),
    ],
)
def test_a_wrong_parameter_of_cuda_is_named(key: str, value: str, error: str) -> None:
    given = spec("cuda:0", parameters={key: {"string_value": value}})
    with pytest.raises(LoadFailed, match=error):
        choose(given, ALL, None)


def test_only_gpus_want_tensorrt() -> None:
    optimization = accelerated("gpu", "tensorrt")
    assert wants_tensorrt(spec("cuda:0", optimization=optimization))
    assert not wants_tensorrt(spec("cpu", optimization=optimization))
    assert not wants_tensorrt(spec("cuda:0"))
