"""What is done to tenants leaves a trace: each change is told of before it is made, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

from penstock.errors import PenstockError

logger = logging.getLogger(__name__)


class TenantChange(msgspec.Struct, frozen=True, kw_only=True):
    """One, at one of its moments."""

    action: str
    """Such as `tenants.key.create`."""
    outcome: Literal["allowed", "done", "failed"]
    principal: str
    """Who does it."""
    tenant: str
    reason: str = ""
    """Why it failed."""
    details: Mapping[str, str] = {}
    """Never a key's secret."""


Record = Callable[[TenantChange], None]
"""Is told of a change, and returns when that is durable. Raises Unavailable where nothing is done without a trace."""


def not_recorded(_: TenantChange) -> None:
    """Where there is no audit log."""


class ChangeTrace:
    """Of all that one caller does to tenants."""

    def __init__(self, principal: str, record: Record = not_recorded) -> None:
        self._principal: Final = principal
        self._record = record

    @contextmanager
    def of(self, action: str, tenant: str, **details: str) -> Iterator[None]:
        """Around a change, which is not made when it can't be told of. Raises Unavailable then."""
        about = TenantChange(
            action=f"tenants.{action}",
            outcome="allowed",
            principal=self._principal,
            tenant=tenant,
            details={name: value for name, value in details.items() if value},
        )
        self._record(about)
        try:
            yield
        except PenstockError as error:
            self._end(msgspec.structs.replace(about, outcome="failed", reason=str(error)))
            raise
        self._end(msgspec.structs.replace(about, outcome="done"))

    def _end(self, change: TenantChange) -> None:
        try:
            self._record(change)
        except PenstockError as error:
            # its beginning is in the log, and it can't be taken back
            told = f"{change.action} of tenant '{change.tenant}' is {change.outcome}"
            logger.warning("%s, which could not be recorded: %s", told, error)
