"""What a configuration must hold beyond the types of its keys."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.repository.config_check import check_complete

TENSOR = {"name": "T", "data_type": "TYPE_FP32", "dims": [-1, 3]}


def complete(**changes: Any) -> dict[str, Any]:
    return {"name": "m", "max_batch_size": 8, "input": [TENSOR], "output": [TENSOR], **changes}


def warmup(given: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "w", "inputs": {"T": given}, **fields}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_batch_size": 0},
        {"dynamic_batching": {}},
        {"max_batch_size": 0, "dynamic_batching": {}},
        {"dynamic_batching": {"preferred_batch_size": [1, 8]}},
        {"input": [{**TENSOR, "dims": []}]},
        {"max_batch_size": 0, "output": [{**TENSOR, "dims": []}]},
        {"input": [{**TENSOR, "dims": [2, 4, -1, 6], "reshape": {"shape": [8, -1, 1, 6]}}]},
        {"input": [{**TENSOR, "dims": [1], "reshape": {"shape": []}}]},
        {"instance_group": [{"kind": "KIND_CPU"}, {"kind": "KIND_AUTO", "count": 3}]},
        {"instance_group": [{"kind": "KIND_GPU", "gpus": [0, 3]}, {"gpus": [1]}]},
        {"version_policy": {"specific": {"versions": [1, 2]}}},
        {"model_transaction_policy": {"decoupled": False}},
        {"model_transaction_policy": {"decoupled": True}, "dynamic_batching": {}},
        {"default_model_filename": "model..onnx"},
        {"model_warmup": [warmup({"zero_data": True, "dims": [2, 3]}, batch_size=8)]},
        {"max_batch_size": 0, "model_warmup": [warmup({"random_data": True, "dims": [1, 3]})]},
        {"model_warmup": [warmup({"input_data_file": "a/b.bin", "dims": [2, 3]})]},
    ],
)
def test_good_ones(changes: dict[str, Any]) -> None:
    check_complete(complete(**changes), "m")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input": []}, "input is empty; expected at least one, and the model's files name none"),
        ({"output": []}, "output is empty; expected at least one, and the model's files name none"),
        (
            {"input": [{"name": "T", "dims": [1]}]},
            "input[0].data_type is not given; expected one of TYPE_BOOL, TYPE_UINT8, ",
        ),
        ({"input": [{"dims": [1]}]}, "input[0].data_type is not given; expected one of"),
        (
            {"input": [{**TENSOR, "name": ""}]},
            "input[0].name is not given; expected the tensor's name",
        ),
        (
            {"output": [TENSOR, TENSOR]},
            "output[1].name is 'T', as is that of output[0]; expected different names",
        ),
        (
            {"input": [{**TENSOR, "dims": [3, 0]}]},
            "input[0].dims[1] is 0; expected -1 (any size), or 1 or more",
        ),
        (
            {"input": [{**TENSOR, "dims": [-2]}]},
            "input[0].dims[0] is -2; expected -1 (any size), or 1 or more",
        ),
        (
            {"input": [{**TENSOR, "dims": [4], "reshape": {"shape": [2, 3]}}]},
            "input[0].reshape.shape is [2, 3]; expected as many elements as dims [4] has",
        ),
        (
            {"input": [{**TENSOR, "dims": [4], "reshape": {"shape": [0]}}]},
            "input[0].reshape.shape[0] is 0; expected -1 (any size), or 1 or more",
        ),
        ({"max_batch_size": -1}, "max_batch_size is -1; expected 0 (no batch dimension) or more"),
        (
            {"instance_group": [{"count": -2}]},
            "instance_group[0].count is -2; expected 1 or more",
        ),
        (
            {"instance_group": [{"count": 1000}, {"count": 24}, {"count": 1}]},
            "instance_group[2].count makes 1025 instances of the model; expected 1024 at most",
        ),
        (
            {"instance_group": [{"kind": "KIND_CPU", "gpus": [0]}]},
            "instance_group[0].gpus are given with KIND_CPU;"
            " expected them only with KIND_GPU or KIND_AUTO",
        ),
        (
            {"instance_group": [{"gpus": [-1]}]},
            "instance_group[0].gpus[0] is -1; expected 0 or more",
        ),
        (
            {"dynamic_batching": {"preferred_batch_size": [4, 9]}},
            "dynamic_batching.preferred_batch_size[1] is 9;"
            " expected 1 to max_batch_size, which is 8",
        ),
        (
            {"dynamic_batching": {"preferred_batch_size": [0]}},
            "dynamic_batching.preferred_batch_size[0] is 0;"
            " expected 1 to max_batch_size, which is 8",
        ),
        (
            {"dynamic_batching": {"priority_levels": 2}},
            "dynamic_batching.default_priority_level is 0;"
            " expected 1 to priority_levels, which is 2",
        ),
        (
            {
                "dynamic_batching": {
                    "priority_levels": 2,
                    "default_priority_level": 1,
                    "priority_queue_policy": {"3": {}},
                }
            },
            "dynamic_batching.priority_queue_policy['3'] is for a level that isn't there;"
            " expected 1 to priority_levels, which is 2",
        ),
        (
            {
                "dynamic_batching": {
                    "preserve_ordering": True,
                    "priority_levels": 2,
                    "default_priority_level": 1,
                }
            },
            "dynamic_batching.priority_levels is 2;"
            " expected 1 at most, for preserve_ordering is true",
        ),
        (
            {
                "dynamic_batching": {
                    "preserve_ordering": True,
                    "default_queue_policy": {
                        "timeout_action": "DELAY",
                        "default_timeout_microseconds": 5,
                    },
                }
            },
            "dynamic_batching.default_queue_policy.timeout_action is DELAY;"
            " expected REJECT, for preserve_ordering is true",
        ),
        (
            {"instance_group": [{"rate_limiter": {"resources": [{"count": 1}]}}]},
            "instance_group[0].rate_limiter.resources[0].name is not given;"
            " expected the resource's name",
        ),
        (
            {
                "instance_group": [
                    {"rate_limiter": {"resources": [{"name": "R"}]}},
                    {"rate_limiter": {"resources": [{"name": "R"}, {"name": "R", "count": 2}]}},
                ]
            },
            "instance_group[1].rate_limiter.resources[1].name is 'R',"
            " as is that of resources[0]; expected one of it",
        ),
        (
            {"version_policy": {"latest": {}}},
            "version_policy.latest.num_versions is 0; expected 1 or more",
        ),
        (
            {"version_policy": {"specific": {}}},
            "version_policy.specific.versions is empty; expected at least one version",
        ),
        (
            {"version_policy": {"specific": {"versions": [1, 0]}}},
            "version_policy.specific.versions[1] is 0; expected 1 or more",
        ),
        (
            {"default_model_filename": "../model.py"},
            "default_model_filename is '../model.py';"
            " expected the name of a file in the version's folder, without a path",
        ),
        (
            {"cc_model_filenames": {"7.5": ".."}},
            "cc_model_filenames['7.5'] is '..';"
            " expected the name of a file in the version's folder, without a path",
        ),
        (
            {"model_warmup": [warmup({}), warmup({"zero_data": True, "dims": [2, 3]})]},
            "model_warmup[0].inputs['T'] says nothing of its data;"
            " expected one of zero_data, random_data, input_data_file",
        ),
        (
            {"model_warmup": [warmup({"zero_data": True, "dims": [2, 3]}, batch_size=9)]},
            "model_warmup[0].batch_size is 9; expected 1 to max_batch_size, which is 8",
        ),
        (
            {"model_warmup": [warmup({"zero_data": True, "dims": [-1, 3]})]},
            "model_warmup[0].inputs['T'].dims[0] is -1;"
            " expected 1 or more, the size to warm up with",
        ),
        (
            {"model_warmup": [warmup({"zero_data": True, "dims": [2, 4]})]},
            "model_warmup[0].inputs['T'].dims are [2, 4]; expected [-1, 3], which the input has",
        ),
        (
            {
                "model_warmup": [
                    warmup({"zero_data": True, "dims": [2, 3], "data_type": "TYPE_BOOL"})
                ]
            },
            "model_warmup[0].inputs['T'].data_type is TYPE_BOOL;"
            " expected TYPE_FP32, which the input has",
        ),
        (
            {"model_warmup": [warmup({"input_data_file": "../../other", "dims": [2, 3]})]},
            "model_warmup[0].inputs['T'].input_data_file is '../../other';"
            " expected the name of a file in the folder warmup of the model's own",
        ),
        (
            {
                "model_transaction_policy": {"decoupled": True},
                "dynamic_batching": {"preserve_ordering": True},
            },
            "model_transaction_policy.decoupled is true beside dynamic_batching.preserve_ordering;"
            " expected one of them",
        ),
    ],
)
def test_bad_ones(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_complete(complete(**changes), "model 'm'")
    assert str(caught.value).startswith(f"model 'm': {expected}")


def test_what_a_backend_may_not_answer() -> None:
    with pytest.raises(ConfigError, match="not a model configuration"):
        check_complete({"name": 3}, "model 'm'")
