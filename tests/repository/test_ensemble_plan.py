"""Ensembles against the models of their steps: what doesn't fit is told by step and tensor."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble_configs import ensemble, plain, step, tensor
from nested_bench import served
from penstock.errors import ConfigError
from penstock.image_config import as_clients_see
from penstock.model_config import ConfigDict
from penstock.repository.ensemble_plan import EnsemblePlan, Place, Reshape

CHAIN = (step("a", "X=IN", "X=mid"), step("b", "X=mid", "X=OUT"))
NO_BATCH: Any = {"max_batch_size": 0}


def planned(config: ConfigDict, *models: ConfigDict) -> EnsemblePlan:
    return EnsemblePlan(config, [served(None, model) for model in models])  # type: ignore[arg-type]


def wide(name: str, dims: list[int], **more: Any) -> ConfigDict:
    return plain(name, input=[tensor("X", dims=dims)], output=[tensor("X", dims=dims)], **more)


@pytest.mark.parametrize(
    ("config", "models"),
    [
        (ensemble(*CHAIN), (plain("a"), plain("b"))),
        (ensemble(*CHAIN), (plain("a", max_batch_size=9), wide("b", [-1]))),
        (ensemble(*CHAIN), (plain("a"), wide("b", [-1, 1], **NO_BATCH))),
        (ensemble(*CHAIN), (plain("a"), wide("b", [1], **NO_BATCH))),
        (ensemble(*CHAIN, **NO_BATCH), (plain("a"), plain("b"))),
        (
            ensemble(*CHAIN[:1], output=[tensor("mid")]),
            (plain("a", input=[tensor("X"), tensor("MORE", optional=True)]),),
        ),
        (
            ensemble(*CHAIN, input=[tensor("IN", dims=[4, 3], reshape={"shape": [12]})]),
            (plain("a", input=[tensor("X", dims=[12])]), plain("b")),
        ),
        (
            ensemble(*CHAIN[:1], output=[tensor("mid", dims=[2, -1], reshape={"shape": [-1, 2]})]),
            (plain("a", output=[tensor("X", dims=[3, 2])]),),
        ),
    ],
)
def test_good_ones(config: ConfigDict, models: tuple[ConfigDict, ...]) -> None:
    assert len(planned(config, *models).steps) == len(models)


def test_a_step_takes_images_where_its_model_does() -> None:
    takes = tensor("X", dims=[3, 8, 8])
    value = {"string_value": "stretch"}
    model = plain("a", input=[takes], output=[takes], parameters={"image.X.resize": value})
    images = tensor("IN", data_type="TYPE_UINT8", dims=[-1, -1, 3])
    config = ensemble(CHAIN[0], input=[images], output=[tensor("mid", dims=[3, 8, 8])])
    assert len(planned(config, model).steps) == 1
    # what `penstock check` has, is what clients see already
    assert len(planned(config, as_clients_see(model)).steps) == 1
    with pytest.raises(ConfigError, match=r"TYPE_FP32 as input 'IN'.*expects TYPE_UINT8"):
        planned(ensemble(CHAIN[0], input=[tensor("IN")], output=[tensor("mid")]), model)


@pytest.mark.parametrize(
    ("config", "models", "expected"),
    [
        (
            ensemble(step("a", "X=IN Z=IN", "X=OUT")),
            (plain("a"),),
            "step 0 ('a'): input_map has 'Z'; expected inputs of the model: X",
        ),
        (
            ensemble(step("a", "X=IN", "Z=OUT")),
            (plain("a"),),
            "step 0 ('a'): output_map has 'Z'; expected outputs of the model: X",
        ),
        (
            ensemble(step("a", "X=IN", "X=OUT")),
            (plain("a", input=[tensor("X"), tensor("MORE")]),),
            "step 0 ('a'): the model's input 'MORE' is not in input_map; expected it, for it is"
            " not optional",
        ),
        (
            ensemble(*CHAIN),
            (plain("a"), plain("b", max_batch_size=4)),
            "step 1 ('b'): its model has max_batch_size 4; expected at least that of the ensemble,"
            " which is 8",
        ),
        (
            ensemble(*CHAIN),
            (plain("a"), plain("b", model_transaction_policy={"decoupled": True})),
            "step 1 ('b'): its model is decoupled; expected one that gives each request exactly",
        ),
        (
            ensemble(*CHAIN),
            (plain("a"), plain("b", input=[tensor("X", "TYPE_INT32")])),
            "tensor 'mid' is TYPE_FP32 as output 'X' of step 0 ('a'), but input 'X' of step 1"
            " ('b') expects TYPE_INT32",
        ),
        (
            ensemble(*CHAIN),
            (plain("a"), wide("b", [2])),
            "tensor 'mid' has the shape [-1, 1] as output 'X' of step 0 ('a'), but input 'X' of"
            " step 1 ('b') expects [-1, 2]",
        ),
        (
            ensemble(*CHAIN),
            (wide("a", [-1, -1]), plain("b")),
            "tensor 'IN' has the shape [-1, 1] as input 'IN' of the ensemble, but input 'X' of"
            " step 0 ('a') expects [-1, -1, -1]",
        ),
        (
            ensemble(*CHAIN, output=[tensor("OUT", "TYPE_INT8")]),
            (plain("a"), plain("b")),
            "tensor 'OUT' is TYPE_FP32 as output 'X' of step 1 ('b'), but output 'OUT' of the"
            " ensemble expects TYPE_INT8",
        ),
        (
            ensemble(*CHAIN, **NO_BATCH),
            (plain("a"), wide("b", [-1, 2], **NO_BATCH)),
            "tensor 'mid' has the shape [-1, 1] as output 'X' of step 0 ('a'), but input 'X' of"
            " step 1 ('b') expects [-1, 2]",
        ),
    ],
)
def test_bad_ones(config: ConfigDict, models: tuple[ConfigDict, ...], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        planned(config, *models)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("dims", "batched", "shape", "rows", "expected"),
    [
        ((3,), True, (2, 3), 2, (2, 3)),
        ((3,), False, (3,), 0, (3,)),
        # made without a batch dimension, for a model that has one
        ((3,), True, (3,), 0, (1, 3)),
        ((3,), True, (5, 3), 0, (5, 3)),
        # made with one, for a model that has none
        ((3,), False, (1, 3), 1, (3,)),
        ((-1, 3), False, (1, 3), 1, (1, 3)),
        ((-1, 3), False, (4, 3), 4, (4, 3)),
        ((3,), False, (4, 3), 4, (4, 3)),
    ],
)
def test_batches_of_one(
    dims: tuple[int, ...],
    batched: bool,
    shape: tuple[int, ...],
    rows: int,
    expected: tuple[int, ...],
) -> None:
    assert Place("", "TYPE_FP32", dims, batched).shape(shape, rows) == expected


def test_reshapes() -> None:
    assert Reshape((2, -1, 6), (-1, 12))((5, 2, 7, 6), batched=True) == (5, 7, 12)
    assert Reshape((1,), ())((1,), batched=False) == ()


def test_the_course_of_the_same_outputs_is_made_once() -> None:
    plan = planned(ensemble(*CHAIN, output=[tensor("OUT"), tensor("mid")]), plain("a"), plain("b"))
    assert list(plan.course(("mid",)).steps) == [0]
    assert list(plan.course(()).steps) == [0, 1]
    assert plan.course(("mid",)) is plan.course(("mid",))
