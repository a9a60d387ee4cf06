"""What a server does not start with, though a gateway that takes another's place goes on and serves whom it can."""

from __future__ import annotations

import asyncio
import logging

from penstock.access.assembly import Access
from penstock.audit.log import AuditLog
from penstock.errors import ConfigError, Unavailable
from penstock.workers.control import ControlLink

log = logging.getLogger(__name__)


async def ends(link: ControlLink, problem: str) -> bool:
    """Whether the server ends for it."""
    if await link.inherited() is not None:
        return False
    link.fail(problem)
    return True


async def start_access(access: Access, link: ControlLink) -> bool:
    """Whether to go on."""
    try:
        await asyncio.to_thread(access.start)
    except ConfigError as error:
        if await ends(link, str(error)):
            return False
        log.error("%s", error)  # noqa: TRY400 - it says all
    if access.quotas is not None:
        access.quotas.start()
    return True


async def probe_audit(audit_log: AuditLog, link: ControlLink, *, goes_on: bool) -> bool:
    """Whether to go on: when the server starts, an audit log that can't be written is a mistake in the settings.

    `goes_on`: they say to serve all the same."""
    try:
        await asyncio.to_thread(audit_log.probe)
    except Unavailable as error:
        if not goes_on and await ends(link, f"audit: {error}"):
            return False
        log.error("audit: %s", error)  # noqa: TRY400 - it says all
    return True
