"""Which evaluation was the best, and whether to wait for a better one. Pure: it is kept in each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock_training.config import EvaluationSettings


@dataclass(frozen=True)
class Best:
    """What is known after some evaluations."""

    step: int | None = None
    """After which step it was measured; None: there was no evaluation yet."""
    values: Mapping[str, float] = field(default_factory=dict)
    """All that it gave."""
    waited: int = 0
    """Evaluations since then."""

    def after(self, settings: EvaluationSettings, step: int, values: Mapping[str, float]) -> Best:
        """With one more evaluation."""
        if self.step is None or _is_better(
            settings, values[settings.best], self.values[settings.best]
        ):
            return Best(step, dict(values))
        return replace(self, waited=self.waited + 1)

    def gives_up(self, settings: EvaluationSettings) -> bool:
        """Early stopping: it has waited long enough."""
        return 0 < settings.patience <= self.waited


def _is_better(settings: EvaluationSettings, value: float, than: float) -> bool:
    gain = value - than if settings.higher_is_better else than - value
    return gain > settings.min_delta
