"""How good predicted probabilities are, on data that the training has not seen. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 15
"""Of the calibration plot, as the literature has it."""
_SMALLEST: Final = 1e-12

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well one class is told from all others."""

    name: str
    precision: float
    """NaN: it was never predicted."""
    recall: float
    """NaN: there is none of it."""
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    """Their mean; NaN: there are none."""
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """Probabilities that a classifier gave, and what was true."""

    labels: Counts
    """The true class of each sample."""
    probabilities: Floats
    """One row a sample, one column a class."""
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        samples, classes = self.probabilities.shape
        if self.labels.shape != (samples,) or classes != len(self.class_names):
            raise ValueError(
                f"{self.labels.shape} labels, {self.probabilities.shape} probabilities and "
                f"{len(self.class_names)} names of classes do not fit together"
            )
        if samples == 0:
            raise ValueError("there is no sample to evaluate with")
        if self.labels.min() < 0 or self.labels.max() >= classes:
            raise ValueError(
                f"there are labels from {self.labels.min()} to {self.labels.max()}; expected 0 to {classes - 1}"
            )

    @cached_property
    def predicted(self) -> Counts:
        """The class that each sample is taken for."""
        found: Counts = self.probabilities.argmax(axis=1)
        return found

    @cached_property
    def confidence(self) -> Floats:
        """How sure of it the model is."""
        found: Floats = self.probabilities.max(axis=1)
        return found

    @property
    def samples(self) -> int:
        return len(self.labels)

    @cached_property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).mean())

    @cached_property
    def log_loss(self) -> float:
        of_truth = self.probabilities[np.arange(self.samples), self.labels]
        return float(-np.log(np.maximum(of_truth, _SMALLEST)).mean())

    @cached_property
    def brier(self) -> float:
        """The mean squared distance of the probabilities from the truth: 0 is best, 2 is worst."""
        truth = np.eye(len(self.class_names))[self.labels]
        return float(((self.probabilities - truth) ** 2).sum(axis=1).mean())

    @cached_property
    def confusion(self) -> Counts:
        """Samples by true class (rows) and predicted class (columns)."""
        classes = len(self.class_names)
        flat = np.bincount(self.labels * classes + self.predicted, minlength=classes * classes)
        return flat.reshape(classes, classes)

    @cached_property
    def classes(self) -> tuple[ClassScores, ...]:
        hits = self.confusion.diagonal()
        support, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return tuple(
            ClassScores(
                name,
                _share(hit, there),
                _share(hit, true),
                _share(2 * hit, there + true),
                true,
                there,
            )
            for name, hit, true, there in zip(
                self.class_names, hits.tolist(), support.tolist(), predicted.tolist(), strict=True
            )
        )

    @cached_property
    def macro_f1(self) -> float:
        """The mean over the classes of which there is a sample, or a prediction."""
        found = [each.f1 for each in self.classes if each.support or each.predicted]
        return float(np.mean(found))

    @cached_property
    def bins(self) -> tuple[Bin, ...]:
        """The reliability diagram: predictions by how sure the model is, and how often it is right then."""
        edges = np.linspace(0, 1, BINS + 1)
        # (low, high]: one that is quite sure belongs to the last
        place = np.clip(np.digitize(self.confidence, edges, right=True) - 1, 0, BINS - 1)
        right = self.predicted == self.labels
        return tuple(
            _bin(edges[at], edges[at + 1], self.confidence[place == at], right[place == at])
            for at in range(BINS)
        )

    @cached_property
    def ece(self) -> float:
        """The expected calibration error: how far confidence and accuracy are apart, weighed by samples."""
        return float(sum(_gap(each) * each.count for each in self.bins) / self.samples)

    @cached_property
    def max_calibration_error(self) -> float:
        return max(_gap(each) for each in self.bins)

    @property
    def metrics(self) -> dict[str, float]:
        """All of it that is one number."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "brier": self.brier,
            "ece": self.ece,
        }

    def confused(self, most: int) -> list[tuple[str, str, int]]:
        """The mistakes that were made most often: true class, predicted class, how often."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = (divmod(int(at), len(self.class_names)) for at in order)
        return [
            (self.class_names[true], self.class_names[taken], int(wrong[true, taken]))
            for true, taken in pairs
            if wrong[true, taken]
        ]


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Probabilities of a row of logits each."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def accuracy_interval(accuracy: float, samples: int) -> tuple[float, float]:
    """Where the true accuracy lies with 95 %: Wilson's interval."""
    z = 1.959964
    centre = accuracy + z * z / (2 * samples)
    half = z * float(np.sqrt(accuracy * (1 - accuracy) / samples + z * z / (4 * samples**2)))
    scale = 1 + z * z / samples
    return (centre - half) / scale, (centre + half) / scale


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _bin(low: float, high: float, confidence: Floats, right: NDArray[np.bool_]) -> Bin:
    if not len(confidence):
        return Bin(float(low), float(high), 0, float("nan"), float("nan"))
    return Bin(
        float(low), float(high), len(confidence), float(confidence.mean()), float(right.mean())
    )


def _gap(found: Bin) -> float:
    return abs(found.confidence - found.accuracy) if found.count else 0.0
