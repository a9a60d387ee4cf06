"""What an RPC is to all that serves or carries one: messages as bytes, in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from penstock.errors import InvalidRequest

Unary = Callable[[bytes], Awaitable[bytes]]
Stream = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
Rpc = tuple[str, str, Callable[[Any], Awaitable[Message]]]
"""Method, its request's message, and what answers it."""


def parse(cls: type[Message], data: bytes) -> Message:
    """The message. Raises InvalidRequest when the bytes are none."""
    try:
        return cls.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"the message is not a {cls.DESCRIPTOR.name}: {error}") from error
