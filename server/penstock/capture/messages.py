"""What the gateway and the writer of records say to each other: frames of MessagePack over a Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

import msgspec

from penstock.capture.columns import Table

SOCKET: Final = "capture.sock"
"""In the run's folder: there the writer listens."""
MAX_FRAME_BYTES: Final = (1 << 32) - 1

_LENGTH: Final = Struct(">I")


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One tensor, as it is on the wire."""

    shape: tuple[int, ...]
    data: memoryview


class SequencePlace(msgspec.Struct, frozen=True, array_like=True):
    """A request's place in its sequence."""

    id: str
    start: bool
    end: bool


class Record(msgspec.Struct, frozen=True, array_like=True, tag="record"):
    """One request, and what became of it."""

    table: int
    time_us: int
    """When it came, since 1970."""
    duration_us: int
    request_id: str
    tenant: str
    """Its name."""
    digest: str
    """The model's; empty: it is not known yet."""
    outcome: str
    """`ok`, or the error's name."""
    sequence: SequencePlace | None
    inputs: list[Kept | None]
    """Of the table's inputs; None: the request has it not."""
    responses: list[list[Kept | None]]
    """Of each response the table's outputs."""


class Written(msgspec.Struct, frozen=True, array_like=True, tag="written"):
    """What the writer did since it started."""

    records: int
    """That are in complete files."""
    lost: int
    """That could not be written."""
    files: int
    nbytes: int
    failing: bool
    """What was tried last did not work."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_entry: Final = msgspec.msgpack.Decoder(Table | Record).decode
_decode_written: Final = msgspec.msgpack.Decoder(Written).decode


def frame(message: Table | Record | Written) -> bytes:
    """The message's bytes, with their length before them."""
    data = _encode(message)
    return _LENGTH.pack(len(data)) + data


class Frames:
    """Puts frames together again from what a stream brings."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete by now, without their lengths."""
        self._buffer += data
        position, end = 0, len(self._buffer)
        while end - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            first = position + _LENGTH.size
            if end - first < length:
                break
            position = first + length
            yield bytes(self._buffer[first:position])
        del self._buffer[:position]


def entry_of(data: bytes) -> Table | Record:
    """What the gateway says. Raises msgspec.DecodeError."""
    entry: Table | Record = _decode_entry(data)
    return entry


def written_of(data: bytes) -> Written:
    """What the writer says. Raises msgspec.DecodeError."""
    return _decode_written(data)
