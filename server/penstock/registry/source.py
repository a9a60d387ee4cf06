"""What the agent asks of a registry, whatever it is: `mlflow_registry.py` answers it, and tests do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from penstock.registry.fetch import Artifacts
from penstock.registry.messages import VersionLineage

READY = "READY"
"""The status of a version whose files are all there."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A registered model, as it is now."""

    aliases: Mapping[str, int]
    latest: int | None = None
    """Its highest version that is ready, where that was asked for; None: it has none."""


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version of it."""

    version: int
    status: str
    source: str
    """Where its files are."""
    run_id: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Registry(Protocol):
    """Its methods block, each for so long at most. They raise NotFound; Unavailable where it can't be asked now;
    Forbidden where it refuses; LoadFailed on what else it says."""

    def model(self, name: str, *, latest: bool) -> ModelFacts:
        """`latest`: ask for the latest version too."""
        ...

    def version(self, name: str, version: int) -> VersionFacts:
        """One version."""
        ...

    def artifacts(self, facts: VersionFacts) -> Artifacts:
        """Where its files are read. Raises also where they may not be."""
        ...

    def lineage(self, name: str, version: int) -> VersionLineage:
        """Where it comes from."""
        ...

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Have it mean that version."""
        ...

    def set_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Write a tag of a version."""
        ...
