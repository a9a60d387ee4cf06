"""Which versions are good enough."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from penstock_training.gates import NO_GATES, PASSED, Champion, Verdict, judge
from penstock_training.held_out import HeldOut
from penstock_training.register_config import GateSettings, RegisterSettings
from penstock_training.report.page import _badge
from penstock_training.report.statistics import Evaluation

# of four samples one is wrong: the second class has a recall of one half
FOUND = Evaluation(
    np.array([0, 0, 1, 1]),
    np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.6, 0.4]]),
    ["cat", "dog"],
)
CLASSIFIER = HeldOut(4, {**FOUND.metrics, "mine": 0.5}, FOUND)


def judged(
    gates: Mapping[str, object],
    champion: Champion | None = None,
    onnx_error: float = 1e-6,
    found: HeldOut = CLASSIFIER,
) -> Verdict:
    return judge(GateSettings.model_validate(gates), found, onnx_error, champion)


def champion(**metrics: float) -> Champion:
    return Champion(3, metrics)


@pytest.mark.parametrize(
    ("gates", "summary"),
    [
        ({}, NO_GATES),
        ({"onnx_error": 1e-5}, NO_GATES),
        ({"minimum": {"accuracy": 0.75, "mine": 0.5}}, PASSED),
        ({"minimum": {"accuracy": 0.8}}, "failed: accuracy 0.75, expected at least 0.8"),
        ({"maximum": {"ece": 0.5}}, PASSED),
        ({"maximum": {"mine": 0.4}}, "failed: mine 0.5, expected at most 0.4"),
        (
            {"minimum_recall": 0.6},
            "failed: recall of each class 0.5 of 'dog', expected at least 0.6",
        ),
        ({"minimum_recall": 0.5}, PASSED),
        (
            {"minimum": {"acuracy": 0.5}},
            "failed: acuracy is no metric of this run (there are: accuracy, brier, ece, log_loss, macro_f1, mine), "
            "expected at least 0.5",
        ),
    ],
)
def test_thresholds(gates: dict[str, object], summary: str) -> None:
    assert judged(gates).summary == summary


def test_all_that_failed_is_said() -> None:
    found = judged({"minimum": {"accuracy": 0.8}, "onnx_error": 1e-7})
    assert found.summary == (
        "failed: accuracy 0.75, expected at least 0.8; "
        "difference of ONNX and torch 1e-6, expected at most 1e-7"
    )
    assert [gate.passed for gate in found.gates] == [False, False]


@pytest.mark.parametrize("error", [math.inf, math.nan])
def test_an_export_that_is_no_number_is_none(error: float) -> None:
    assert not judged({}, onnx_error=error).passed


@pytest.mark.parametrize(
    ("worse_by", "theirs", "passed"),
    [
        ({}, {"accuracy": 0.752}, True),
        ({}, {"accuracy": 0.753}, False),
        ({"accuracy": 0.1}, {"accuracy": 0.85}, True),
        ({"accuracy": 0.1}, {"accuracy": 0.86}, False),
        # below zero: it has to be better
        ({"accuracy": -0.1}, {"accuracy": 0.65}, True),
        ({"accuracy": -0.1}, {"accuracy": 0.66}, False),
        # lower is better
        ({"mine": 0.0}, {"mine": 0.5}, True),
        ({"log_loss": 0.1}, {"log_loss": FOUND.log_loss - 0.09}, True),
        ({"log_loss": 0.1}, {"log_loss": FOUND.log_loss - 0.11}, False),
        ({"accuracy": 0.0}, {"accuracy": math.nan}, False),
    ],
)
def test_against_the_champion(
    worse_by: dict[str, float], theirs: dict[str, float], passed: bool
) -> None:
    found = judged({"champion": {"worse_by": worse_by}}, champion(**theirs))
    assert found.passed is passed


def test_metrics_of_a_recipe_may_be_better_when_lower() -> None:
    gates = {"champion": {"worse_by": {"mine": 0}}, "lower_is_better": ["mine"]}
    assert not judged(gates, champion(mine=0.4)).passed
    assert judged(gates, champion(mine=0.6)).passed


def test_a_first_version_has_nobody_to_be_compared_with() -> None:
    assert judged({"champion": {"worse_by": {"accuracy": -1}}}).passed


def test_the_report_does_not_say_passed_where_there_are_no_gates() -> None:
    assert "no gates" in _badge(judged({}))
    assert "all gates passed" in _badge(judged({"minimum": {"accuracy": 0.7}}))
    assert "1 of 1 gates failed" in _badge(judged({}, onnx_error=1))


def test_to_be_compared_with_a_champion_is_a_gate() -> None:
    assert judged({}, champion(accuracy=0.75)).summary == PASSED


def test_a_champion_that_does_not_run_is_no_reason_to_let_the_next_one_pass() -> None:
    found = judged({}, Champion(3, {}, "it is no ONNX model"))
    assert found.summary == (
        "failed: comparison with the champion (version 3) it is no ONNX model, expected possible"
    )


def test_what_is_no_classifier_is_compared_by_what_is_named() -> None:
    regression = HeldOut(4, {"mae": 0.5}, None)
    assert judged({}, champion(mae=0.1), found=regression).passed
    gates = {"champion": {"worse_by": {"mae": 0.1}}, "lower_is_better": ["mae"]}
    assert not judged(gates, champion(mae=0.1), found=regression).passed


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "a/b"}, "no slash"),
        ({"name": "m", "alias": "latest"}, "MLflow keeps"),
        ({"name": "m", "alias": "v12"}, "MLflow keeps"),
        ({"name": "m", "alias": "champion"}, "a version that was not tried"),
        ({"name": "m", "signing_key_password": "env:SECRET"}, "need a signing_key"),
        ({"name": "m", "gates": {"minimum": {"accuracy": math.nan}}}, "finite"),
        ({"name": "m", "gates": {"onnx_error": 0}}, "greater than 0"),
        ({"name": "m", "gates": {"minimal": {}}}, "Extra inputs"),
    ],
)
def test_settings_that_can_not_be_meant(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RegisterSettings.model_validate(values)
