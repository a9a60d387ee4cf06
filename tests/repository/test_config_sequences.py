"""What `sequence_batching` must hold."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.repository.config_check import check_complete

TENSOR = {"name": "T", "data_type": "TYPE_FP32", "dims": [-1, 3]}
STATE = {"input_name": "BEFORE", "output_name": "AFTER", "data_type": "TYPE_FP32", "dims": [-1, 3]}
FIXED = {"name": "first", "data_type": "TYPE_FP32", "dims": [2, 3]}
START = {"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}
ID = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_STRING"}


def check(config: dict[str, Any] | None = None, **batching: Any) -> None:
    """Raises ConfigError with what is wrong."""
    whole = {"name": "m", "max_batch_size": 8, "input": [TENSOR], "output": [TENSOR]}
    check_complete({**whole, **(config or {}), "sequence_batching": batching}, "m")


def controls(*given: dict[str, Any], names: str = "ABCDEF") -> list[dict[str, Any]]:
    """A control input of each."""
    return [{"name": name, "control": [each]} for name, each in zip(names, given, strict=False)]


@pytest.mark.parametrize(
    "batching",
    [
        {},
        {"direct": {}},
        {"direct": {"minimum_slot_utilization": 1, "max_queue_delay_microseconds": 5}},
        {"oldest": {"max_candidate_sequences": 1}},
        {"oldest": {"max_candidate_sequences": 9, "preferred_batch_size": [8]}},
        {"max_sequence_idle_microseconds": 1},
        {"control_input": controls(START, ID)},
        {
            "control_input": controls(
                {"kind": "CONTROL_SEQUENCE_END", "bool_false_true": [False, True]},
                {"kind": "CONTROL_SEQUENCE_READY", "fp32_false_true": [-1, 1.5]},
                {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT32"},
            )
        },
        {"state": [STATE]},
        {"state": [{**STATE, "output_name": "T"}]},
        {"state": [{**STATE, "initial_state": [{**FIXED, "zero_data": True}]}]},
        {"state": [{**STATE, "initial_state": [{**FIXED, "data_file": "f.bin"}]}]},
        {"state": [{**STATE, "use_same_buffer_for_input_output": True}]},
    ],
)
def test_good_ones(batching: dict[str, Any]) -> None:
    check(**batching)


@pytest.mark.parametrize(
    ("batching", "expected"),
    [
        ({"iterative_sequence": True}, ".iterative_sequence is not supported; expected false"),
        (
            {"direct": {"minimum_slot_utilization": 1.5}},
            ".direct.minimum_slot_utilization is 1.5; expected 0 to 1",
        ),
        ({"oldest": {}}, ".oldest.max_candidate_sequences is 0; expected 1 or more"),
        (
            {"oldest": {"max_candidate_sequences": 2, "preferred_batch_size": [4, 9]}},
            ".oldest.preferred_batch_size[1] is 9; expected 1 to max_batch_size, which is 8",
        ),
        (
            {"control_input": [{"name": "A"}]},
            ".control_input[0].control has 0 entries; expected exactly one",
        ),
        (
            {"control_input": controls(START, START)},
            ".control_input[1].control[0].kind is CONTROL_SEQUENCE_START, as is that of"
            " control_input[0]",
        ),
        (
            {"control_input": controls({"kind": "CONTROL_SEQUENCE_READY"})},
            ".control_input[0].control[0] has no values; expected one of int32_false_true,"
            " fp32_false_true, bool_false_true",
        ),
        (
            {"control_input": controls({**START, "bool_false_true": [True, False]})},
            ".control_input[0].control[0] has int32_false_true and bool_false_true; expected one",
        ),
        (
            {"control_input": controls({**START, "int32_false_true": [1]})},
            ".control_input[0].control[0].int32_false_true has 1 values; expected 2, for false",
        ),
        (
            {"control_input": controls({"kind": START["kind"], "fp32_false_true": ["NaN", 1]})},
            ".control_input[0].control[0].fp32_false_true is not finite; expected two numbers",
        ),
        (
            {"control_input": controls({**ID, "data_type": "TYPE_FP32"})},
            ".control_input[0].control[0].data_type is TYPE_FP32; expected one of TYPE_UINT64,"
            " TYPE_INT64, TYPE_UINT32, TYPE_INT32, TYPE_STRING",
        ),
        (
            {"control_input": controls({**ID, "int32_false_true": [0, 1]})},
            ".control_input[0].control[0].int32_false_true is given for CONTROL_SEQUENCE_CORRID;"
            " expected data_type only",
        ),
        (
            {"control_input": controls(START, ID, names="AA")},
            ".control_input[1].name is 'A', as is that of sequence_batching.control_input[0].name;"
            " expected different names",
        ),
        (
            {"control_input": controls(START, names="T")},
            ".control_input[0].name is 'T', as is that of input[0]; expected different names",
        ),
        (
            {"control_input": [{"control": [START]}]},
            ".control_input[0].name is not given; expected the tensor's name",
        ),
        (
            {"state": [{**STATE, "input_name": "T"}]},
            ".state[0].input_name is 'T', as is that of input[0]; expected different names",
        ),
        ({"state": [{**STATE, "output_name": ""}]}, ".state[0].output_name is not given"),
        (
            {"state": [STATE, {**STATE, "input_name": "OTHER"}]},
            ".state[1].output_name is 'AFTER', as is that of sequence_batching.state[0].output_name",
        ),
        (
            {"state": [{**STATE, "data_type": "TYPE_INVALID"}]},
            ".state[0].data_type is TYPE_INVALID; expected one of TYPE_BOOL",
        ),
        ({"state": [{**STATE, "dims": [0]}]}, ".state[0].dims[0] is 0; expected -1 (any size)"),
        (
            {"state": [{**STATE, "use_growable_memory": True}]},
            ".state[0].use_growable_memory is for GPUs, which are not supported yet",
        ),
        (
            {"state": [{**STATE, "initial_state": [FIXED, FIXED]}]},
            ".state[0].initial_state has 2 entries; expected one at most",
        ),
        (
            {"state": [{**STATE, "initial_state": [{**FIXED, "name": "", "zero_data": True}]}]},
            ".state[0].initial_state[0].name is not given",
        ),
        (
            {"state": [{**STATE, "initial_state": [FIXED]}]},
            ".state[0].initial_state[0] has no data; expected zero_data: true, or a data_file",
        ),
        (
            {"state": [{**STATE, "initial_state": [{**FIXED, "dims": [2, 4], "zero_data": True}]}]},
            ".state[0].initial_state[0].dims is [2, 4]; expected sizes that fit the state's [-1, 3]",
        ),
        (
            {
                "state": [
                    {**STATE, "initial_state": [{**FIXED, "dims": [-1, 3], "zero_data": True}]}
                ]
            },
            ".state[0].initial_state[0].dims[0] is -1; expected 1 or more",
        ),
        (
            {
                "state": [
                    {
                        **STATE,
                        "initial_state": [{**FIXED, "data_type": "TYPE_BOOL", "zero_data": True}],
                    }
                ]
            },
            ".state[0].initial_state[0].data_type is TYPE_BOOL; expected the state's, TYPE_FP32",
        ),
        (
            {"state": [{**STATE, "initial_state": [{**FIXED, "data_file": "../secret"}]}]},
            ".state[0].initial_state[0].data_file is '../secret'; expected the name of a file in"
            " the folder initial_state",
        ),
    ],
)
def test_bad_ones(batching: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(**batching)
    assert str(caught.value).startswith(f"m: sequence_batching{expected}")
