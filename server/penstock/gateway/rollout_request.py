"""What a request to begin a roll-out says, and what the settings say where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.errors import InvalidRequest
from penstock.rollouts.plan import RolloutPlan, plan_of
from penstock.rollouts_config import RolloutsSettings

MAX_BYTES: Final = 64 << 10
_FIXED: Final = ("model", "stable", "candidate")
"""Fields of a plan that the request says otherwise."""


class RolloutRequest:
    """Parsed, but for what the versions are."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Raises InvalidRequest."""
        fields = dict(given)
        self.to: Final[object] = fields.pop("to", None)
        """The candidate: a version's number, or an alias with `@`."""
        self.since: Final[object] = fields.pop("from", None)
        """The stable version; None: the one that answers now."""
        self.despite_gates: Final[object] = fields.pop("despite_gates", False)
        """Also a version that has failed the quality gates of its training."""
        if not isinstance(self.despite_gates, bool):
            raise InvalidRequest("roll-out: despite_gates: expected true or false")
        if self.to in (None, ""):
            raise InvalidRequest("roll-out: 'to' is missing: the version to try, or an alias of it")
        for name in _FIXED:
            if name in fields:
                raise InvalidRequest(
                    f"roll-out: unexpected '{name}': the path names the model, 'from' and 'to' the versions"
                )
        guards = fields.pop("guards", {})
        if not isinstance(guards, Mapping):
            raise InvalidRequest(f"roll-out: guards: expected an object, got {guards!r}"[:200])
        self._fields: Final = fields
        self._guards: Final = guards

    def plan(
        self, settings: RolloutsSettings, model: str, stable: int, candidate: int
    ) -> RolloutPlan:
        """The whole plan. Raises InvalidRequest."""
        fields = {**_defaults(settings), **self._fields}
        guards = {**_default_guards(settings), **self._guards}
        versions = {"model": model, "stable": stable, "candidate": candidate}
        return plan_of({**fields, "guards": guards, **versions})


def parse_request(body: bytes) -> RolloutRequest:
    """Raises InvalidRequest."""
    if len(body) > MAX_BYTES:
        raise InvalidRequest(f"roll-out: the body is longer than {MAX_BYTES} bytes")
    try:
        return RolloutRequest(msgspec.json.decode(body or b"{}", type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"roll-out: the body is not a JSON object: {error}") from error


def _defaults(settings: RolloutsSettings) -> dict[str, Any]:
    return {
        "steps": settings.steps,
        "step_s": settings.step_secs,
        "min_requests": settings.min_requests,
        "mode": settings.mode,
        "promote": settings.promote,
        "fallback": settings.fallback,
        "sticky": settings.sticky,
    }


def _default_guards(settings: RolloutsSettings) -> dict[str, Any]:
    given = settings.guards.model_dump()
    return {name: None if value == "off" else value for name, value in given.items()}
