"""Which roll-outs there are: each model's last one."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.errors import NotFound, PenstockError
from penstock.gateway.rollout_run import RolloutRun
from penstock.repository.repository import ModelRepository


class RolloutIndex:
    """One a gateway."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository
        self._runs: dict[str, RolloutRun] = {}

    def runs(self) -> Iterator[RolloutRun]:
        """Each model's last one, by the model's name."""
        return (run for _, run in sorted(self._runs.items()))

    def under_way(self) -> list[RolloutRun]:
        """Those of which what they decide is not done."""
        return [run for run in self._runs.values() if not run.done]

    def run_of(self, model: str) -> RolloutRun:
        """The model's last one. Raises NotFound."""
        run = self._runs.get(model)
        if run is None:
            raise NotFound(f"there is no roll-out of model '{model}'")
        return run

    def going(self, model: str) -> RolloutRun | None:
        """The model's, while what it decides is not done."""
        run = self._runs.get(model)
        return None if run is None or run.done else run

    def tried(self, model: str) -> set[int]:
        """Versions that were candidates of the model's last roll-out, or of those before it."""
        run = self._runs.get(model)
        return set() if run is None else run.tried

    def was_tried(self, model: str, version: int) -> bool:
        """Whether a version was the candidate of a roll-out of the model, or answers already."""
        if version in self.tried(model):
            return True
        try:
            return self._repository.get(model).version == version
        except PenstockError:
            return False

    def share_of(self, model: str, version: int) -> float | None:
        """Percent of the model's requests that a version gets; None: no roll-out says so."""
        run = self.going(model)
        if run is None or version not in (run.plan.stable, run.plan.candidate):
            return None
        share = 0.0 if run.live.shadow else run.live.share / 100
        return share if version == run.plan.candidate else 100 - share

    def put(self, run: RolloutRun) -> None:
        """It is its model's last one from now on."""
        self._runs[run.plan.model] = run

    def remove(self, run: RolloutRun) -> None:
        """Forget it, unless another one has taken its place."""
        if self._runs.get(run.plan.model) is run:
            del self._runs[run.plan.model]
