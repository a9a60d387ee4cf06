"""What a configuration's parameters say to the torch backend."""

from __future__ import annotations

import pytest

from penstock.backends.torch_options import Options, read_options
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict


def options(**values: str) -> Options:
    return read_options(configured(**values), threads=3)


def configured(**values: str) -> ConfigDict:
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


def test_defaults() -> None:
    found = options()
    assert (found.intra_op_threads, found.inter_op_threads) == (3, 1)
    assert found.inference_mode and found.optimized_execution and found.cudnn
    assert (found.channels_last, found.autocast, found.cuda_graphs) == ("0", "0", False)


def test_tritons_names_in_capitals_and_switches_in_any_letters() -> None:
    found = options(
        INTRA_OP_THREAD_COUNT="2",
        INTER_OP_THREAD_COUNT="4",
        INFERENCE_MODE="False",
        DISABLE_OPTIMIZED_EXECUTION="true",
        ENABLE_JIT_PROFILING="0",
        DISABLE_CUDNN="1",
        ENABLE_CACHE_CLEANING="TRUE",
        ENABLE_WEIGHT_SHARING="false",
    )
    assert (found.intra_op_threads, found.inter_op_threads) == (2, 4)
    assert not (found.inference_mode or found.optimized_execution or found.cudnn)
    assert (found.jit_profiling, found.jit_executor, found.tensor_fuser) == (False, None, None)
    assert found.cache_cleaning
    assert options(intra_op_thread_count="5").intra_op_threads == 5
    assert options(INTRA_OP_THREAD_COUNT="0").intra_op_threads >= 1


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("INTRA_OP_THREAD_COUNT", "two", "expected a count of threads"),
        ("INFERENCE_MODE", "maybe", "expected true or false"),
        ("autocast", "fp8", "expected one of 0, bf16, fp16, auto"),
        ("channels_last", "nhwc", "expected one of 0, 1, auto"),
        ("cuda_graphs_max", "0", "expected a count, 1 at least"),
        ("ENABLE_WEIGHT_SHARING", "true", "each instance is a process with weights of its own"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: str, told: str) -> None:
    with pytest.raises(LoadFailed, match=f"'{key}' is .*{told}"):
        options(**{key: value})


def test_graphs_are_for_inputs_of_one_shape() -> None:
    ragged = {"name": "X", "allow_ragged_batch": True}
    assert options(cuda_graphs="1").cuda_graphs
    asked: ConfigDict = {"optimization": {"cuda": {"graphs": True}}}
    assert read_options(asked, threads=1).cuda_graphs
    for more in ({"input": [ragged]}, {"batch_input": [{"target_name": ["N"]}]}):
        with pytest.raises(LoadFailed, match="a graph is for inputs of one shape"):
            read_options({**configured(cuda_graphs="1"), **more}, threads=1)
