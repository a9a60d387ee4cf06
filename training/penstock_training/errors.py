"""Errors of training, in Penstock's one tree.

PenstockError
├── ConfigError              the configuration is wrong; names file, line, what was expected
└── TrainingError            a run can't begin, or can't go on
    ├── RecipeError          the recipe can't be imported, or breaks its promises
    ├── DataError            a table is not there, or not as expected
    ├── CheckpointError      a checkpoint can't be written or read, or is another run's
    ├── Diverged             the loss is no number any more
    ├── ProcessesLost        a process dies each time it is started
    └── RegistrationError    the trained model can't be exported, signed or registered
"""

from __future__ import annotations

from penstock.errors import PenstockError


class TrainingError(PenstockError):
    """A run can't begin, or can't go on. Starting it again would not help."""

    foreign = True


class RecipeError(TrainingError):
    """The recipe can't be imported, or breaks its promises."""


class DataError(TrainingError):
    """A table is not there, or not as expected."""


class CheckpointError(TrainingError):
    """A checkpoint can't be written or read, or is another run's."""


class Diverged(TrainingError):
    """The loss is no number any more."""


class ProcessesLost(TrainingError):
    """A process dies each time it is started."""


class RegistrationError(TrainingError):
    """The trained model can't be exported, signed or registered."""
