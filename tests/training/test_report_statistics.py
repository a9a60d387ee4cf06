"""What a report counts, against scikit-learn and against the definitions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from penstock_training.register_config import CLASSIFIER_METRICS
from penstock_training.report.statistics import BINS, Evaluation, accuracy_interval, softmax


def some(samples: int, classes: int, seed: int) -> Evaluation:
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(samples, classes)) * 3
    labels = chance.integers(classes, size=samples)
    return Evaluation(labels, softmax(logits), [f"class {at}" for at in range(classes)])


evaluations = st.builds(some, st.integers(1, 200), st.integers(2, 6), st.integers(0, 2**32 - 1))


def test_gates_know_all_that_is_counted() -> None:
    assert tuple(some(10, 2, 0).metrics) == CLASSIFIER_METRICS


@given(evaluations)
def test_counts_are_those_of_scikit_learn(found: Evaluation) -> None:
    names = list(range(len(found.class_names)))
    truth, taken = found.labels, found.predicted
    matrix = metrics.confusion_matrix(truth, taken, labels=names)
    scores: Any = metrics.precision_recall_fscore_support(
        truth,
        taken,
        labels=names,
        zero_division=np.nan,  # pyright: ignore[reportArgumentType] - its own documentation offers it
    )
    assert np.array_equal(found.confusion, matrix)
    assert np.allclose([c.precision for c in found.classes], scores[0], equal_nan=True)
    assert np.allclose([c.recall for c in found.classes], scores[1], equal_nan=True)
    assert [c.support for c in found.classes] == scores[3].tolist()
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, taken))
    assert found.log_loss == pytest.approx(
        metrics.log_loss(truth, found.probabilities, labels=names)
    )


@given(evaluations)
def test_the_calibration_error_is_its_definition(found: Evaluation) -> None:
    right = found.predicted == found.labels
    total = 0.0
    for at in range(BINS):
        inside = (found.confidence > at / BINS) & (found.confidence <= (at + 1) / BINS)
        if inside.any():
            gap = abs(found.confidence[inside].mean() - right[inside].mean())
            total += gap * inside.mean()
    assert found.ece == pytest.approx(total, abs=1e-9)
    assert sum(each.count for each in found.bins) == found.samples
    assert found.max_calibration_error >= found.ece - 1e-12


def test_a_perfect_model() -> None:
    found = Evaluation(np.array([0, 1, 1]), np.eye(2)[[0, 1, 1]], ["no", "yes"])
    assert found.metrics == {"accuracy": 1, "macro_f1": 1, "log_loss": 0, "brier": 0, "ece": 0}
    assert found.confused(5) == []


def test_what_is_confused_most_comes_first() -> None:
    taken = np.eye(3)[[1, 1, 2, 2, 0, 0]]
    found = Evaluation(np.array([0, 0, 0, 2, 2, 0]), taken, ["a", "b", "c"])
    assert found.confused(9) == [("a", "b", 2), ("a", "c", 1), ("c", "a", 1)]
    assert found.confused(1) == [("a", "b", 2)]


def test_a_class_without_samples_and_predictions_has_no_scores() -> None:
    found = Evaluation(np.array([0]), np.array([[0.9, 0.1, 0.0]]), ["a", "b", "c"])
    assert math.isnan(found.classes[2].recall)
    assert math.isnan(found.classes[2].precision)
    assert found.macro_f1 == 1


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "words"),
    [
        ([0, 1], [[1.0, 0.0]], ["a", "b"], "do not fit together"),
        ([0], [[1.0, 0.0]], ["a"], "do not fit together"),
        ([2], [[1.0, 0.0]], ["a", "b"], "labels from 2 to 2; expected 0 to 1"),
        ([-1], [[1.0, 0.0]], ["a", "b"], "labels from -1 to -1"),
    ],
)
def test_what_does_not_fit_is_refused(
    labels: list[int], probabilities: list[list[float]], names: list[str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Evaluation(np.array(labels), np.array(probabilities), names)


def test_the_interval_of_an_accuracy() -> None:
    low, high = accuracy_interval(0.98, 360)
    # statsmodels' proportion_confint(352.8, 360, method="wilson")
    assert (round(low, 3), round(high, 3)) == (0.96, 0.99)
    assert accuracy_interval(1.0, 10)[0] == pytest.approx(0.7225, abs=1e-4)
