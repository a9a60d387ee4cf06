"""The gateway's end of the line to the registry agent: it never blocks, and comes back by itself when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from penstock.errors import Unavailable
from penstock.registry.messages import (
    FetchNote,
    RegistryModel,
    RegistryState,
    ResolvedVersion,
    VersionLineage,
)

log = logging.getLogger(__name__)

OnAlias = Callable[[str, str, int | None, int | None], None]
"""Served model, alias, the version that it meant (None: it was not there), the one that it means (None: it is gone)."""


class RegistryLink:
    """What the gateway knows of the registry, and asks of it. Models are named as they are served.

    All its methods are for the event loop that it was made on.
    """

    def __init__(self, socket_path: Path, state: RegistryState | None = None) -> None:
        """`state`: what an agent last said to a gateway before this one. Nothing is connected yet."""
        self.state: RegistryState = state or RegistryState()
        """What the agent said last; it stays while the agent is away."""
        self.on_alias: OnAlias = lambda *_: None
        """Called for each alias of a served model that is new, has moved, or is gone, once: after a gateway's start for
        all that there are (the version before: None). Where a reference names the alias, its version is loaded first."""
        self.share_of: Callable[[str, int], float | None] = lambda *_: None
        """Percent of a model's requests that a version gets, where a roll-out decides; None: none does. Call
        `statuses_changed` when that has changed."""
        self.statuses_changed: Callable[[], None] = lambda: None

    def serves(self, model: str) -> bool:
        """Whether the model comes from the registry."""
        raise NotImplementedError

    def aliases(self, model: str) -> Mapping[str, int]:
        """All aliases of the model, as the registry had them when it was last asked; empty for others."""
        raise NotImplementedError

    async def resolve(self, model: str, ref: str) -> ResolvedVersion:
        """What a reference means now: `@challenger`, `4`, or empty for the latest. Asks the registry.

        Raises NotFound (no such model, alias or version), Unavailable (it can't be asked now)."""
        raise NotImplementedError

    async def want(self, model: str, version: int) -> None:
        """Have that version loaded beside the others, although no reference names it, until `unwant`; returns when it
        is. It is fetched where it has to be. Raises NotFound, Unavailable, LoadFailed: then it is not wanted."""
        raise NotImplementedError

    def unwant(self, model: str, version: int) -> None:
        """It may go again, unless a reference names it."""
        raise NotImplementedError

    async def set_alias(self, model: str, alias: str, version: int) -> None:
        """Have the alias mean that version, in the registry. Raises NotFound, Unavailable, Forbidden: nothing was
        changed, as far as anybody knows. Trying again does no harm."""
        raise NotImplementedError

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Have tags of the version written. Returns at once; it is tried until it works, also after the registry was
        away, and of several values of one name the last holds. What is not written when the gateway ends is lost."""
        raise NotImplementedError

    async def lineage(self, model: str, version: int) -> VersionLineage:
        """Where the version comes from. Raises NotFound, Unavailable."""
        raise NotImplementedError
