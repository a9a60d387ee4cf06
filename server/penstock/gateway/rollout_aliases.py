"""Aliases of the registry that move: one begins a roll-out, another one ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from penstock.errors import Conflict, InvalidRequest, PenstockError
from penstock.gateway.rollout_request import RolloutRequest
from penstock.gateway.rollouts import Rollouts
from penstock.repository.jobs import Jobs

log = logging.getLogger(__name__)

RETRY_S: Final = 60.0
"""After a roll-out could not be begun: its version may not be there yet."""


class AliasFollower:
    """One a gateway. All of it runs on the event loop."""

    def __init__(self, rollouts: Rollouts, follow: Mapping[str, str]) -> None:
        """`follow`: model → alias with `@` whose versions are tried."""
        self._rollouts = rollouts
        self._follow = follow
        self._meant: dict[str, int] = {}
        """Model → what the alias that is followed means, and was not tried yet."""
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._jobs = Jobs()
        self._ready = False

    def begin(self) -> None:
        """All models are loaded that could be: what aliases said until now is done."""
        self._ready = True
        for model in list(self._meant):
            self._try(model)

    def moved(self, model: str, alias: str, old: int | None, new: int | None) -> None:
        """As the registry's link tells it. `old`, `new`: None where there is, or was, none."""
        self._stable_moved(model, alias, new)
        if self._follow.get(model) != f"@{alias}":
            return
        self._meant.pop(model, None)
        if new is not None:
            self._meant[model] = new
            if self._ready:
                self._try(model)

    async def close(self) -> None:
        """Begin nothing any more."""
        self._ready = False
        for timer in self._retries.values():
            timer.cancel()
        await self._jobs.close()

    def _stable_moved(self, model: str, alias: str, new: int | None) -> None:
        """Somebody else has decided which version is the stable one."""
        run = self._rollouts.index.going(model)
        if run is None or run.over or run.alias != alias or new in (None, run.plan.stable):
            return
        try:
            if new == run.plan.candidate:
                self._rollouts.promote(model, f"alias:{alias}")
            else:
                self._rollouts.abort(model, f"@{alias} means version {new} now")
        except PenstockError as error:
            log.warning("@%s of model '%s' is version %s: %s", alias, model, new, error)

    def _try(self, model: str) -> None:
        """Begin a roll-out of what the alias means, unless that was tried, or answers already."""
        version = self._meant[model]
        run = self._rollouts.index.going(model)
        if run is not None and not run.over and run.plan.candidate != version:
            self._rollouts.abort(model, f"{self._follow[model]} means version {version} now")
        if self._rollouts.index.was_tried(model, version):
            del self._meant[model]
            return
        self._jobs.start(self._start(model, version))

    async def _start(self, model: str, version: int) -> None:
        alias = self._follow[model]
        try:
            await self._rollouts.start(model, RolloutRequest({"to": version}), f"alias:{alias[1:]}")
        except PenstockError as error:
            log.warning("%s of model '%s' can't be rolled out: %s", alias, model, error)
            if isinstance(error, InvalidRequest) and not isinstance(error, Conflict):
                # it would be the same again
                self._tried(model, version)
            else:
                self._again(model)
        else:
            self._tried(model, version)

    def _tried(self, model: str, version: int) -> None:
        """The alias may mean another version since that one was begun: it is the next."""
        if self._meant.get(model) == version:
            del self._meant[model]
        elif model in self._meant and self._ready:
            self._try(model)

    def _again(self, model: str) -> None:
        if not self._ready:
            return
        if (before := self._retries.pop(model, None)) is not None:
            before.cancel()
        loop = asyncio.get_running_loop()
        self._retries[model] = loop.call_later(RETRY_S, self._retry, model)

    def _retry(self, model: str) -> None:
        del self._retries[model]
        if model in self._meant:
            self._try(model)
