"""Ports are checked and chosen before anything starts, so that a port in use is one clear line."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from pathlib import Path
from typing import Final

from penstock.config import ENV_PREFIX, Settings, flag_of
from penstock.errors import Unavailable

KERNELS_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The first and the last of the ports that the kernel gives to connections, and to who asks it for any."""

FIRST: Final = 10_000
TRIES: Final = 100


def resolve_ports(settings: Settings) -> Settings:
    """The settings with a free port in place of each 0.

    Raises Unavailable, naming port and setting, when a port can't be had.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        # fixed ports first: a free one must not be one of them
        for name, port in sorted(settings.ports().items(), key=lambda item: item[1] == 0):
            bind = _bind if port else _bind_free
            sock = held.enter_context(bind(settings.host, name, port))
            chosen[name] = sock.getsockname()[1]
    return settings.model_copy(update=chosen)


def _bind_free(host: str, name: str, port: int) -> socket.socket:
    """A free port below the kernel's range: between this look at it and the front's own, and while a front is started
    anew, one of that range may become any connection's, even that of a client to itself."""
    with contextlib.suppress(OSError, ValueError):
        end = int(KERNELS_RANGE.read_text().split()[0])
        for _ in range(TRIES):
            try:
                return _bind(host, name, random.randrange(FIRST, end))
            except Unavailable as error:
                if not (
                    isinstance(why := error.__cause__, OSError) and why.errno == errno.EADDRINUSE
                ):
                    raise
    return _bind(host, name, port)


def _bind(host: str, name: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # connections of a server that has just ended don't count as use
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        # without it two sockets with SO_REUSEADDR may both bind
        sock.listen(1)
    except OSError as error:
        sock.close()
        raise Unavailable(_explain(error, host, name, port)) from error
    return sock


def _explain(error: OSError, host: str, name: str, port: int) -> str:
    other = f"choose another with {flag_of(name)} or {ENV_PREFIX}{name.upper()} (0: any free one)"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use: {other}"
        case errno.EACCES | errno.EPERM:
            return f"port {port} on {host} may not be opened by this user: {other}"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine: change {flag_of('host')}"
    return f"port {port} on {host} can't be opened: {error.strerror}"
