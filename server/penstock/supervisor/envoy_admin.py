"""What the supervisor asks of Envoy's admin socket."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from penstock.gateway.envoy_config import STAT_PREFIX
from penstock.supervisor.local_http import request

_TIMEOUT_S: Final = 2.0


class EnvoyAdmin:
    """Every method raises OSError when Envoy doesn't answer."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    async def fail_health_check(self) -> None:
        """Envoy tells clients to close their connections from now on."""
        await self._post("/healthcheck/fail")

    async def drain_listeners(self) -> None:
        """Take no more connections once the drain time is over; go on with those there are."""
        await self._post("/drain_listeners?graceful")

    async def quit(self) -> None:
        """End the process."""
        await self._post("/quitquitquit")

    async def active_requests(self) -> int:
        """Requests under way."""
        return await self._gauge("downstream_rq_active")

    async def connections(self) -> int:
        """Open connections of clients."""
        return await self._gauge("downstream_cx_active")

    async def _post(self, target: str) -> None:
        status, _ = await request(self._socket_path, "POST", target, _TIMEOUT_S)
        if status != 200:
            raise OSError(f"Envoy's admin answered {target} with {status}")

    async def _gauge(self, name: str) -> int:
        full = f"http.{STAT_PREFIX}.{name}"
        target = f"/stats?filter=^{full.replace('.', '%5C.')}$"
        _, body = await request(self._socket_path, "GET", target, _TIMEOUT_S)
        for line in body.decode().splitlines():
            label, _, value = line.partition(": ")
            if label == full:
                return int(value)
        raise OSError(f"Envoy knows no {full}")
