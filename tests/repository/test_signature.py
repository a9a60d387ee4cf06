"""A model's signature: what it plans for good headers, and each of its refusals."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidRequest
from penstock.model_config import ModelConfig, Tensor
from penstock.repository.signature import Signature, check_sizes
from penstock.types import InferHeader, RequestedOutput, TensorSpec

IMAGE = Tensor(name="IMAGE", data_type="TYPE_FP32", dims=(3, -1))
SIZE = Tensor(name="SIZE", data_type="TYPE_INT64", dims=(1,))
TEXT = Tensor(name="TEXT", data_type="TYPE_STRING", dims=(1,), optional=True)
Y = Tensor(name="Y", data_type="TYPE_FP32", dims=(10,))
Z = Tensor(name="Z", data_type="TYPE_STRING", dims=(-1,))


def signature(*inputs: Tensor, max_batch_size: int = 4) -> Signature:
    return Signature(
        ModelConfig(
            name="m",
            max_batch_size=max_batch_size,
            input=inputs or (IMAGE, SIZE, TEXT),
            output=(Y, Z),
        )
    )


def image(*shape: int, datatype: str = "FP32", name: str = "IMAGE") -> TensorSpec:
    return TensorSpec(name, datatype, shape or (2, 3, 5))


def size(rows: int = 2) -> TensorSpec:
    return TensorSpec("SIZE", "INT64", (rows, 1))


def text(rows: int = 2) -> TensorSpec:
    return TensorSpec("TEXT", "BYTES", (rows, 1))


def header(*inputs: TensorSpec, **fields: Any) -> InferHeader:
    return InferHeader("m", "", inputs, **fields)


def test_a_plan_is_in_the_models_order() -> None:
    plan = signature().plan(header(text(), image(), size()))
    assert plan.rows == 2
    assert plan.input_names == ("IMAGE", "SIZE", "TEXT")
    assert plan.datatypes == ("FP32", "INT64", "BYTES")
    assert plan.shapes == ((2, 3, 5), (2, 1), (2, 1))
    assert plan.sizes_bytes == (120, 16, -1)
    assert plan.order == (1, 2, 0)


def test_inputs_in_order_need_no_sorting() -> None:
    assert signature().plan(header(image(), size())).order is None


def test_who_can_be_joined() -> None:
    def key(*inputs: TensorSpec) -> Any:
        return signature().plan(header(*inputs)).shape_key

    alone = key(image(1, 3, 5), size(1))
    assert key(size(4), image(4, 3, 5)) == alone
    assert key(image(1, 3, 6), size(1)) != alone
    assert key(image(1, 3, 5), size(1), text(1)) != alone


def test_without_a_batch_dimension() -> None:
    plan = signature(max_batch_size=0).plan(header(image(3, 5), TensorSpec("SIZE", "INT64", (1,))))
    assert (plan.rows, plan.shapes[0], plan.sizes_bytes[0]) == (1, (3, 5), 60)
    assert plan.shape_key == (("IMAGE", (3, 5)), ("SIZE", (1,)))


def test_a_request_of_optional_inputs_only() -> None:
    assert signature(TEXT).plan(header()).rows == 1
    assert signature(TEXT).plan(header()).input_names == ()


def test_outputs_classes_and_parameters() -> None:
    outputs = (RequestedOutput("Z"), RequestedOutput("Y", 3))
    plan = signature().plan(header(image(), size(), outputs=outputs, parameters={"p": 1}))
    assert (plan.output_names, plan.classes, plan.parameters) == (("Z", "Y"), {"Y": 3}, {"p": 1})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([image(), image()], "duplicate input in request for model 'm'"),
        (
            [image(name="PIC"), size()],
            "unexpected inference input 'PIC' for model 'm', expected IMAGE, SIZE, TEXT",
        ),
        (
            [image()],
            "expected 2 inputs but got 1 inputs for model 'm': input 'SIZE' is missing",
        ),
        ([], "expected 2 inputs but got 0 inputs for model 'm': input 'IMAGE' is missing"),
        (
            [image(datatype="FP64"), size()],
            "inference input 'IMAGE' data-type is 'FP64', but model 'm' expects 'FP32'",
        ),
        (
            [image(2, 4, 5), size()],
            "unexpected shape for input 'IMAGE' for model 'm'. Expected [-1,3,-1], got [2,4,5]",
        ),
        (
            [image(2, 3), size()],
            "unexpected shape for input 'IMAGE' for model 'm'. Expected [-1,3,-1], got [2,3]",
        ),
        (
            [image(2, 3, 5, 1), size()],
            "unexpected shape for input 'IMAGE' for model 'm'. Expected [-1,3,-1], got [2,3,5,1]",
        ),
        (
            [image(2, 3, -5), size()],
            "shape [2, 3, -5] has a negative dimension",
        ),
        (
            [image(2, 3, 2**62), size()],
            "shape [2, 3, 4611686018427387904] has too many elements, over 2**63 - 1",
        ),
        (
            [image(), size(3)],
            "input 'SIZE' batch size does not match other inputs for 'm': 3 and 2",
        ),
        (
            [image(5, 3, 1), size(5)],
            "inference request batch-size must be <= 4 for 'm' and at least 1, got 5",
        ),
        (
            [image(0, 3, 1), size(0)],
            "inference request batch-size must be <= 4 for 'm' and at least 1, got 0",
        ),
    ],
)
def test_refusals(inputs: list[TensorSpec], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        signature().plan(header(*inputs))
    assert str(raised.value) == message


def test_an_output_the_model_does_not_have() -> None:
    with pytest.raises(InvalidRequest) as raised:
        signature().plan(header(image(), size(), outputs=(RequestedOutput("W"),)))
    assert str(raised.value) == "unexpected inference output 'W' for model 'm', expected Y, Z"


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((120, 16, 99), None),
        ((119, 16, 5), "input byte size mismatch for input 'IMAGE'. Expected 120, got 119"),
        ((120, 17, 5), "input byte size mismatch for input 'SIZE'. Expected 16, got 17"),
    ],
)
def test_sizes(lengths: tuple[int, ...], message: str | None) -> None:
    plan = signature().plan(header(image(), size(), text()))
    buffers = [b"x" * length for length in lengths]
    if message is None:
        check_sizes(plan, buffers)
    else:
        with pytest.raises(InvalidRequest) as raised:
            check_sizes(plan, buffers)
        assert str(raised.value) == message


# ── requests that are nothing but bytes ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tensor", "max_batch_size", "nbytes", "shape"),
    [
        (Y, 4, 40, (1, 10)),
        (Y, 0, 40, (10,)),
        (Y, 0, 39, (10,)),
        (IMAGE, 4, 60, (1, 3, 5)),
        (IMAGE, 0, 0, (3, 0)),
        (Z, 4, 77, None),
        (TEXT, 4, 77, (1, 1)),
        (TEXT, 0, 0, (1,)),
        (Tensor(name="S", data_type="TYPE_STRING", dims=()), 4, 9, (1,)),
        (Tensor(name="S", data_type="TYPE_STRING", dims=(2,)), 4, 9, None),
    ],
)
def test_the_header_of_raw_bytes(
    tensor: Tensor, max_batch_size: int, nbytes: int, shape: tuple[int, ...] | None
) -> None:
    made = signature(tensor, max_batch_size=max_batch_size)
    if shape is None:
        with pytest.raises(InvalidRequest, match="the model must have input shape"):
            made.raw_header("m", "7", nbytes)
    else:
        expected = (TensorSpec(tensor.name, tensor.datatype, shape),)
        assert made.raw_header("m", "7", nbytes) == InferHeader("m", "7", expected)


@pytest.mark.parametrize(("dims", "nbytes"), [((3, -1), 59), ((-1, -1), 60)])
def test_raw_bytes_whose_shape_can_not_be_told(dims: tuple[int, ...], nbytes: int) -> None:
    tensor = Tensor(name="X", data_type="TYPE_FP32", dims=dims)
    with pytest.raises(InvalidRequest) as raised:
        signature(tensor).raw_header("m", "", nbytes)
    assert str(raised.value) == (
        f"The shape of the raw input 'X' can not be deduced from {nbytes} bytes: "
        f"its dims are {list(dims)}"
    )


def test_raw_bytes_for_a_model_of_several_inputs() -> None:
    with pytest.raises(InvalidRequest) as raised:
        signature().raw_header("m", "", 4)
    assert str(raised.value) == (
        "Raw request must only have 1 input (found 3) to be deduced but got 3 inputs in 'm' "
        "model configuration"
    )
