"""What an ensemble's configuration says by itself."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble_configs import ensemble, step, tensor
from penstock.errors import ConfigError
from penstock.repository.config_check import check_complete

CHAIN = (step("a", "X=IN", "Y=mid"), step("b", "X=mid", "Y=OUT"))
ONE = (step("a", "X=IN", "Y=OUT"),)


@pytest.mark.parametrize(
    "config",
    [
        ensemble(*CHAIN),
        ensemble(*reversed(CHAIN)),
        ensemble(*ONE, max_batch_size=0),
        ensemble(step("a", "X=IN X2=IN", "Y=OUT Z=spare")),
        ensemble(step("a", "X=IN", "Y=mid"), step("b", "X=mid X2=IN", "Y=OUT")),
        ensemble(step("a", "X=IN", "Y=OUT", model_version=3)),
    ],
)
def test_good_ones(config: dict[str, Any]) -> None:
    check_complete(config, "e")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ensemble(), "ensemble_scheduling.step is empty; expected at least one"),
        (ensemble(*ONE, platform=""), "platform is ''; expected 'ensemble'"),
        (
            {**ensemble(*ONE), "backend": "python"},
            "backend is 'python'; expected none, for ensembles have no backend",
        ),
        (
            ensemble(*ONE, instance_group=[{"count": 2}]),
            "instance_group can't be given for an ensemble; expected in the models of its steps",
        ),
        (
            ensemble(step("", "X=IN", "Y=OUT")),
            "ensemble_scheduling.step[0].model_name is not given; expected the name of a model",
        ),
        (
            ensemble(step("e", "X=IN", "Y=OUT")),
            "step[0].model_name is 'e', the ensemble itself; expected another model",
        ),
        (
            ensemble(step("a", "X=IN", "Y=OUT", model_version=-2)),
            "step[0].model_version is -2; expected -1 (the latest) or a version",
        ),
        (
            ensemble(step("a", "X=IN", "Y=OUT", model_namespace="team")),
            "step[0].model_namespace is 'team'; expected none, for there are no namespaces",
        ),
        (
            ensemble(*CHAIN, step("c", "", "Y=late")),
            "step[2].input_map is empty; expected at least one of the model's tensors",
        ),
        (
            ensemble(*CHAIN, step("c", "X=mid", "")),
            "step[2].output_map is empty; expected at least one of the model's tensors",
        ),
        (
            ensemble(step("a", "X=", "Y=OUT")),
            "step[0].input_map['X'] is not given; expected the name of a tensor of the ensemble",
        ),
        (
            ensemble(*CHAIN, step("c", "X=IN", "Y=mid")),
            "step[2].output_map['Y'] is 'mid', which is an output of step 0 ('a') already;"
            " expected another name",
        ),
        (
            ensemble(*CHAIN, step("c", "X=mid", "Y=IN")),
            "step[2].output_map['Y'] is 'IN', which is an input of the ensemble already",
        ),
        (
            ensemble(*ONE, input=[tensor("IN"), tensor("SPARE")]),
            "input[1].name is 'SPARE', which no step reads; expected in some step's input_map",
        ),
        (
            ensemble(*ONE, output=[tensor("OUT"), tensor("MORE")]),
            "output[1].name is 'MORE', which no step gives; expected in some step's output_map",
        ),
        (
            ensemble(*ONE, step("b", "X=nothing", "Y=late")),
            "step[1].input_map['X'] is 'nothing', which is neither an input of the ensemble nor in",
        ),
        (
            ensemble(*ONE, step("b", "X=two Z=IN", "Y=one"), step("c", "X=one", "Y=two")),
            "step[1] has steps that wait for each other's outputs in a circle:"
            " step 1 ('b'), step 2 ('c')",
        ),
    ],
)
def test_bad_ones(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_complete(config, "e")
    assert expected in str(raised.value)
