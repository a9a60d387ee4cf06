"""Ports for programs that have to be told theirs, and can't say which one they took."""

from __future__ import annotations

from penstock.config import Settings
from penstock.supervisor.ports import resolve_ports


def free_port() -> int:
    """None that a connection may be given before the program has opened it."""
    return resolve_ports(Settings(http_port=0, grpc_port=0, metrics_port=0)).http_port
