"""The ensembles of a repository: loaded without workers, and looked at again when the models of their steps change."""

from __future__ import annotations

from pathlib import Path

from penstock.config import Settings
from penstock.model_config import ConfigDict
from penstock.repository.ensemble_model import load_ensemble
from penstock.repository.ensemble_pool import EnsemblePool
from penstock.repository.index import ModelIndex
from penstock.repository.nested import NestedCalls
from penstock.repository.served_model import ServedModel


class Ensembles:
    """All of them. Their models are loaded before they are (`model_loads.py`)."""

    def __init__(self, index: ModelIndex, calls: NestedCalls, settings: Settings) -> None:
        self._index = index
        self._calls = calls
        self._settings = settings

    def load(self, folder: Path, number: int, config: ConfigDict) -> ServedModel:
        """Load an ensemble's version. Raises LoadFailed or ConfigError with the reason."""
        return load_ensemble(self._index, self._calls, self._settings, folder, number, config)

    def recheck(self) -> None:
        """Models have changed: have all ensembles look at their steps."""
        pools = [m.pool for m in self._index.served() if isinstance(m.pool, EnsemblePool)]
        # once more where one changed, for it may be a step of another
        for _ in pools:
            if not any([pool.recheck() for pool in pools]):
                return
