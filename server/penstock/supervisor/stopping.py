"""Ends a gateway in the order that loses no request, within a time."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from penstock.supervisor.envoy_admin import EnvoyAdmin
from penstock.supervisor.front import DRAIN_S
from penstock.supervisor.gateway_life import GatewayLife
from penstock.workers.supervisor_messages import Drain, Shutdown

POLL_S: Final = 0.05
EXIT_S: Final = 5.0
"""How long a gateway without requests may take to end."""

_log = logging.getLogger(__name__)


async def stop_gateway(life: GatewayLife, timeout_s: float) -> bool:
    """End the gateway, which ends its workers. Returns whether all requests under way were answered in time."""
    life.stop_watching()
    clean = True
    if life.process.running and life.serving.is_set():
        life.send(Drain())
        if life.command.admin is not None:
            clean = await _stop_envoy(life, life.command.admin, timeout_s)
        else:
            clean = await _stop_portable(life, timeout_s)
    elif life.process.running:
        # nothing is served yet
        life.send(Shutdown())
        life.process.terminate()
        await life.process.wait(EXIT_S)
    await life.close()
    return clean


async def _stop_envoy(life: GatewayLife, admin_socket: Path, timeout_s: float) -> bool:
    admin = EnvoyAdmin(admin_socket)
    unanswered = 0
    try:
        unanswered = await _drain(life, admin, timeout_s)
        life.send(Shutdown())
        await admin.quit()
    except OSError as error:
        if life.process.running:
            _log.warning("Envoy did not answer while it was stopped: %s", str(error) or "time-out")
            return False
    if unanswered:
        _log.warning("%d requests were dropped: not answered within %g s", unanswered, timeout_s)
    if not await life.process.wait(EXIT_S):
        _log.warning("the gateway did not end within %g s, and is killed", EXIT_S)
    return not unanswered


async def _drain(life: GatewayLife, admin: EnvoyAdmin, timeout_s: float) -> int:
    """Let requests end. Returns how many have not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    await admin.fail_health_check()
    await admin.drain_listeners()
    if await admin.connections():
        # clients with open connections get this long to see that they should go elsewhere
        await life.process.wait(min(DRAIN_S, timeout_s))
    while life.process.running:
        unanswered = await admin.active_requests()
        if not unanswered or loop.time() >= deadline:
            return unanswered
        await life.process.wait(min(POLL_S, deadline - loop.time()))
    return 0


async def _stop_portable(life: GatewayLife, timeout_s: float) -> bool:
    """The portable front drains by itself, and ends when that is done."""
    life.send(Shutdown())
    if await life.process.wait(timeout_s + EXIT_S):
        return True
    _log.warning("requests were dropped: not all were answered within %g s", timeout_s)
    return False
