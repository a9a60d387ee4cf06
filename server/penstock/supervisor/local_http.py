"""The smallest HTTP client: one request to a server of our own, on this machine, within a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

Endpoint = Path | tuple[str, int]
"""A Unix socket, or address and port."""


async def request(
    endpoint: Endpoint, method: str, target: str, timeout_s: float
) -> tuple[int, bytes]:
    """Status and body. Raises OSError when nobody listens or no proper answer came in time."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await _connect(endpoint)
        try:
            head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            writer.write(f"{head}content-length: 0\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    try:
        return int(head_bytes.split(maxsplit=2)[1]), body
    except (IndexError, ValueError):
        raise OSError(f"{method} {target}: no HTTP answer") from None


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(endpoint, Path):
        return await asyncio.open_unix_connection(str(endpoint))
    return await asyncio.open_connection(*endpoint)
