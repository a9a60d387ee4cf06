"""Compressed HTTP bodies: gzip and deflate, both ways."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from penstock.errors import InvalidRequest, PayloadTooLarge, Unsupported

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_WINDOWS: Final = {"gzip": _GZIP_WINDOW, "x-gzip": _GZIP_WINDOW, "deflate": zlib.MAX_WBITS}
ASIDE_BYTES: Final = 4096
"""Becomes 4 MiB at most, for which the event loop has the time."""
_FAST_LEVEL: Final = 1
"""Tensors hardly shrink more at higher levels, which cost several times as much."""


def decompress(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """The body as it was before its Content-Encoding. `deflate` may be wrapped by zlib or raw.

    Never inflates more than `limit_bytes`. Raises PayloadTooLarge over it, InvalidRequest on what is truncated, corrupt
    or followed by more, and Unsupported (as Triton does) on another encoding.
    """
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    window = _WINDOWS.get(encoding)
    if window is None:
        raise Unsupported(
            f"Unsupported compression type '{content_encoding}', expected gzip or deflate"
        )
    if encoding == "deflate" and not _has_zlib_header(body):
        window = -zlib.MAX_WBITS
    return _inflate(body, encoding, window, limit_bytes)


async def decompress_aside(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """As `decompress`, in a thread where it may take long: of little can become a thousand times as much."""
    if len(body) < ASIDE_BYTES:
        return decompress(body, content_encoding, limit_bytes)
    return await asyncio.to_thread(decompress, body, content_encoding, limit_bytes)


def _has_zlib_header(body: bytes) -> bool:
    """RFC 1950: method 8, and a checksum over the first two bytes."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0


def _inflate(body: bytes, encoding: str, window: int, limit_bytes: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        plain = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not valid {encoding}: {error}") from error
    if len(plain) > limit_bytes:
        raise PayloadTooLarge(f"the {encoding} body inflates to over {limit_bytes} bytes")
    if not inflater.eof:
        raise InvalidRequest(f"the {encoding} body is truncated")
    if inflater.unused_data:
        raise InvalidRequest(
            f"{len(inflater.unused_data)} bytes follow the end of the {encoding} body"
        )
    return plain


def choose_encoding(accept_encoding: str) -> str | None:
    """`gzip` or `deflate` where the client names it and likes nothing better, else None: send the body as it is.

    The higher q wins, the first of equals. A bare `*` and malformed parts ask for nothing, as in Triton.
    """
    if not accept_encoding:
        return None
    best, best_quality, identity_quality = None, 0.0, 0.0
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        name, quality = name.strip(), _quality(parameters)
        if name == "identity":
            identity_quality = quality
        elif name in ("gzip", "deflate") and quality > best_quality:
            best, best_quality = name, quality
    return best if best_quality >= identity_quality else None


def _quality(parameters: str) -> float:
    """The `q` of an Accept-Encoding part: 1 where there is none, 0 where it makes no sense."""
    if not parameters.strip():
        return 1.0
    name, _, value = parameters.partition("=")
    if name.strip() != "q":
        return 0.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def compress(body: bytes, encoding: str) -> bytes:
    """The body in an encoding that `choose_encoding` gave."""
    return zlib.compress(body, _FAST_LEVEL, _WINDOWS[encoding])
