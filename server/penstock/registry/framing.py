"""Messages over a stream: each one's length, and then the message as MessagePack."""

from __future__ import annotations

import asyncio
import struct
from typing import Final, TypeVar

import msgspec

from penstock.registry.messages import AgentMessage, GatewayCall

MAX_BYTES: Final = 64 << 20
_LENGTH: Final = struct.Struct(">I")

T = TypeVar("T")


class Ended(Exception):
    """The other side is gone, or says what it may not."""


def frame(message: AgentMessage | GatewayCall) -> bytes:
    """As it is sent."""
    content = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(content)) + content


async def read(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[T]) -> T:
    """The next message. Raises Ended."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_BYTES:
            raise Ended
        return decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError, msgspec.MsgspecError) as error:
        raise Ended from error
