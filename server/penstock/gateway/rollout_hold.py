"""New versions of models that are held get no requests by themselves."""

from __future__ import annotations

from penstock.access_config import matches
from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_versions import VersionSource
from penstock.repository.repository import ModelRepository


class RolloutHold:
    """Of all models from folders."""

    def __init__(
        self,
        repository: ModelRepository,
        patterns: tuple[str, ...],
        keeper: RolloutKeeper,
        source: VersionSource,
    ) -> None:
        """`patterns`: of the names of models that are held."""
        self._repository = repository
        self._patterns = patterns
        self._keeper = keeper
        self._source = source

    def follow_models(self) -> None:
        """The version of a held model that answers now does so until a roll-out says otherwise."""
        if not self._patterns:
            return
        for model, version in self._repository.settled():
            held = matches(model, self._patterns) and not self._source.serves(model)
            if held and self._repository.default_version(model) is None:
                self._repository.expect_default(model, version)
                self._keeper.set_default_soon(model, version)
