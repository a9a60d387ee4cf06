"""Which of the configuration's inputs and outputs are which of a PyTorch model's: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.backends.torch_binding import Inputs, Results, declared
from penstock.backends.torch_program import Part, Program
from penstock.errors import LoadFailed, ModelFailed


def nothing(positional: Sequence[Any], keywords: Any) -> Any:
    raise AssertionError("it is not called")


def program(
    inputs: Sequence[Part] | None = None, outputs: Sequence[Part] | None = None, **more: Any
) -> Program:
    return Program(nothing, inputs, outputs, **more)


AB = (Part("a"), Part("b"))


def bound(names: Sequence[str], found: Program, optional: Sequence[str] = ()) -> tuple[Any, Any]:
    positional, keywords = Inputs(found, names, optional)({name: name for name in names})
    return list(positional), dict(keywords)


def test_inputs_by_the_names_of_arguments_in_any_order() -> None:
    assert bound(["b", "a"], program(AB)) == (["a", "b"], {})


def test_inputs_by_number() -> None:
    assert bound(["X__1", "Y__0"], program(AB)) == (["Y__0", "X__1"], {})
    assert bound(["X__1", "Y__0"], program(None)) == (["Y__0", "X__1"], {})


def test_inputs_in_the_order_of_the_configuration() -> None:
    assert bound(["X", "Y"], program(AB)) == (["X", "Y"], {})
    assert bound(["X", "Y", "Z"], program(None)) == (["X", "Y", "Z"], {})


def test_inputs_as_one_dict() -> None:
    assert bound(["X", "Y"], program(takes_dict=True)) == ([{"X": "X", "Y": "Y"}], {})


def test_arguments_with_a_default_may_be_left_out() -> None:
    found = program((Part("a"), Part("scale", optional=True), Part("mask", optional=True)))
    assert bound(["a", "mask"], found) == (["a"], {"mask": "mask"})
    inputs = Inputs(found, ["a", "scale", "mask"], ["scale"])
    assert inputs({"a": 1, "mask": 3}) == ([1], {"mask": 3})
    assert inputs({"a": 1, "scale": 2, "mask": 3}) == ([1, 2, 3], {})
    assert bound(["X"], found) == (["X"], {})


@pytest.mark.parametrize(
    ("names", "optional", "told"),
    [
        (["a", "c"], [], "has no input 'c': expected one of a, b"),
        (["a"], [], "needs input 'b', which the configuration leaves out: it has a"),
        (["X"], [], "takes 2 inputs, the configuration has 1: X"),
        (["X__0", "X__2"], [], "numbered, but not from 0 to 1"),
        (["X__0", "X__1"], ["X__1"], "'X__1' is optional, but the model's arguments are told by"),
    ],
)
def test_inputs_that_do_not_fit(names: list[str], optional: list[str], told: str) -> None:
    with pytest.raises(LoadFailed, match=told):
        Inputs(program(AB), names, optional)


def test_outputs_by_key_number_and_order() -> None:
    keys = program(outputs=(Part("sum"), Part("scaled")))
    assert Results(keys, ["scaled"])({"sum": 1, "scaled": 2}) == {"scaled": 2}
    two = program(outputs=(Part(), Part()))
    assert Results(two, ["OUTPUT__1"])((1, 2)) == {"OUTPUT__1": 2}
    assert Results(two, ["S", "T"])([1, 2]) == {"S": 1, "T": 2}
    assert Results(program(), ["S"])(1) == {"S": 1}


@pytest.mark.parametrize(
    ("outputs", "names", "told"),
    [
        ([Part("sum")], ["total"], "has no output 'total': it returns a dict of sum"),
        ([Part(), Part()], ["S"], "returns 2 tensors, the configuration has 1 outputs: S"),
        ([Part()], ["S__1"], "returns 1 tensors, but there is 'S__1'"),
    ],
)
def test_outputs_that_do_not_fit(outputs: list[Part], names: list[str], told: str) -> None:
    with pytest.raises(LoadFailed, match=told):
        Results(program(outputs=outputs), names)


def test_outputs_that_are_not_there_when_it_has_run() -> None:
    results = Results(program(), ["S", "T"])
    with pytest.raises(ModelFailed, match="returned 3 values, expected 2 tensors: S, T"):
        results((1, 2, 3))
    with pytest.raises(ModelFailed, match="returned one int, expected 2 tensors"):
        results(1)
    with pytest.raises(ModelFailed, match="returned a dict of S, U, without output 'T'"):
        results({"S": 1, "U": 2})


def test_what_the_model_says_has_the_configurations_names() -> None:
    known = program(
        (Part("a", "TYPE_FP32", (-1, 4)), Part("b", "TYPE_INT8", (-1,))),
        (Part("", "TYPE_FP32", (-1, 2)),),
    )
    said = declared(known, {"input": [{"name": "X__1"}, {"name": "X__0"}]})
    assert [(t.name, t.data_type, t.shape) for t in said.inputs] == [
        ("X__1", "TYPE_INT8", (-1,)),
        ("X__0", "TYPE_FP32", (-1, 4)),
    ]
    alone = declared(known, {})
    assert [tensor.name for tensor in alone.inputs] == ["a", "b"]
    assert [tensor.name for tensor in alone.outputs] == ["OUTPUT__0"]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "doesn't say what its inputs are: expected input in the configuration"),
        ({"input": [{"name": "a", "dims": [1]}]}, "input 'a' has no data_type"),
        ({"input": [{"name": "a", "data_type": "TYPE_FP32"}]}, "'a' has no dims"),
    ],
)
def test_what_nobody_says(config: dict[str, Any], told: str) -> None:
    with pytest.raises(LoadFailed, match=told):
        declared(program(AB), config)
