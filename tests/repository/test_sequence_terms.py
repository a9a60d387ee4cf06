"""What requests say of their sequences."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidRequest
from penstock.model_config import Control, ControlInput, ModelConfig, SequenceBatching, Tensor
from penstock.repository.signature import Signature
from penstock.types import InferHeader, SequenceTerms, TensorSpec

X = Tensor(name="X", data_type="TYPE_FP32", dims=(1,))


def terms(id_type: str = "", rows: int = 1, **parameters: Any) -> SequenceTerms | None:
    """What the signature of a stateful model makes of them."""
    control = Control(kind="CONTROL_SEQUENCE_CORRID", data_type=id_type)
    inputs = (ControlInput(name="ID", control=(control,)),) if id_type else ()
    config = ModelConfig(
        name="m",
        max_batch_size=4,
        input=(X,),
        output=(X,),
        sequence_batching=SequenceBatching(control_input=inputs),
    )
    header = InferHeader("m", "", (TensorSpec("X", "FP32", (rows, 1)),), (), parameters)
    return Signature(config).plan(header).sequence


def test_a_stateless_model_asks_for_nothing() -> None:
    config = ModelConfig(name="m", max_batch_size=4, input=(X,), output=(X,))
    header = InferHeader("m", "", (TensorSpec("X", "FP32", (1, 1)),), (), {"sequence_id": 1})
    assert Signature(config).plan(header).sequence is None


def test_flags_are_false_unless_they_are_given() -> None:
    assert terms(sequence_id=7) == SequenceTerms(7, False, False)
    both = terms(sequence_id="a", sequence_start=True, sequence_end=True)
    assert both == SequenceTerms("a", True, True)


@pytest.mark.parametrize("parameters", [{}, {"sequence_id": 0}, {"sequence_id": ""}])
def test_an_id_is_needed(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        terms(sequence_start=True, **parameters)
    assert str(caught.value) == (
        "inference request to model 'm' must specify a non-zero or non-empty correlation ID"
    )


def test_one_row_is_all_that_a_step_has() -> None:
    with pytest.raises(InvalidRequest, match="must specify batch-size 1 due to requirements of"):
        terms(rows=2, sequence_id=7)


@pytest.mark.parametrize(
    ("id_type", "given", "expected"),
    [
        ("", "x" * 129, "sequence_id of 129 bytes, expected 128 at most"),
        ("TYPE_STRING", "ä" * 65, "sequence_id of 130 bytes"),
        (
            "TYPE_UINT64",
            "seven",
            "sequence_id is the text 'seven', but model 'm' takes TYPE_UINT64",
        ),
        ("TYPE_INT32", 2**31, "sequence_id is 2147483648, but model 'm' takes TYPE_INT32"),
        ("TYPE_UINT32", 2**32, "expected 4294967295 at most"),
        ("TYPE_INT64", 2**63, "expected 9223372036854775807 at most"),
    ],
)
def test_ids_that_the_model_can_not_be_told(id_type: str, given: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        terms(id_type, sequence_id=given)


@pytest.mark.parametrize(
    ("id_type", "given"),
    [
        ("", 2**64 - 1),
        ("TYPE_UINT64", 2**64 - 1),
        ("TYPE_INT32", 2**31 - 1),
        ("TYPE_STRING", 5),
        ("TYPE_STRING", "x" * 128),
    ],
)
def test_ids_that_it_can(id_type: str, given: Any) -> None:
    found = terms(id_type, sequence_id=given)
    assert found is not None
    assert found.id == given
