"""Tenants' weights as they are now: those of the store of tenants, else those of the settings, else 1."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NONE: Final[Mapping[str, float]] = MappingProxyType({})


class TenantWeights:
    """One a server. All models' queues ask it, whenever they charge a tenant for a batch."""

    def __init__(self, given: Mapping[str, float] = NONE) -> None:
        """`given`: of the settings."""
        self._given: Final = given
        self._live: Mapping[str, float] = NONE

    def follow(self, live: Mapping[str, float]) -> None:
        """These are the weights of the store from now on."""
        self._live = live

    def of(self, tenant: str) -> float:
        """The tenant's weight."""
        weight = self._live.get(tenant)
        return self._given.get(tenant, 1.0) if weight is None else weight
