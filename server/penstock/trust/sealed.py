"""Files encrypted at rest: AES-256-GCM in chunks, so that a large one is read with little memory, and nothing that was
not authenticated is ever used.

    magic | key slot | key slot | length of header | header (JSON) | chunk | chunk | …

A chunk's nonce is the file's own prefix, its number, and whether it is the last (the STREAM construction): chunks that
are swapped, left out, repeated or cut off don't decrypt. Each is bound to the header, which says which file of which
model this is. The key is the file's own, random, and wrapped by a key-encryption key in a slot, so that another one can
be put beside it without the file being written anew: the signature is over what is inside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.errors import EncryptionBroken, InvalidRequest
from penstock.trust.kek import EMPTY_SLOT, KEY_BYTES, SLOT_BYTES, KeyEncryptionKey, KeyRing

SUFFIX: Final = ".penc"
"""What the names of encrypted files end in."""
MAGIC: Final = b"\x89PENC\x01\r\n"
SLOTS: Final = 2
TAG_BYTES: Final = 16
CHUNK_BYTES: Final = 1 << 20
MAX_CHUNK_BYTES: Final = 64 << 20
MAX_CHUNKS: Final = 2**32
PREFIX_BYTES: Final = 7
MAX_HEADER_BYTES: Final = 65_535

_SLOTS_AT: Final = len(MAGIC)
_HEADER_AT: Final = _SLOTS_AT + SLOTS * SLOT_BYTES


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an encrypted file before it is opened."""

    raw: bytes
    """As it lies there: chunks and slots are bound to it."""
    slots: Sequence[bytes]
    chunk_bytes: int
    prefix: bytes
    model: str
    path: str
    """In the model's folder, without the suffix."""


def seal(
    source: BinaryIO,
    target: BinaryIO,
    key: KeyEncryptionKey,
    model: str,
    path: str,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Encrypt all of `source`: the file `path` of `model`."""
    prefix, file_key = os.urandom(PREFIX_BYTES), AESGCM.generate_key(KEY_BYTES * 8)
    said = {"chunk_bytes": chunk_bytes, "prefix": prefix.hex(), "model": model, "path": path}
    header = json.dumps(said, separators=(",", ":")).encode()
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidRequest(f"{path[:200]!a}: its name is too long to be encrypted")
    target.write(MAGIC + key.wrap(file_key, header) + EMPTY_SLOT * (SLOTS - 1))
    target.write(len(header).to_bytes(2) + header)
    cipher = AESGCM(file_key)
    for number, last, chunk in _numbered(source, chunk_bytes):
        target.write(cipher.encrypt(_nonce(prefix, number, last), chunk, header))


def unsealed(source: BinaryIO, ring: KeyRing, model: str, path: str) -> Iterator[bytes]:
    """What is inside, chunk by chunk. Raises EncryptionBroken, WrongKeyEncryptionKey."""
    header = read_header(source, path)
    if (header.model, header.path) != (model, path):
        raise EncryptionBroken(
            f"{path[:200]!a} holds {header.path[:200]!a} of the model {header.model[:200]!a}: "
            "it was put in another's place"
        )
    cipher = AESGCM(ring.unwrap(header.slots, header.raw, repr(path)))
    for number, last, chunk in _numbered(source, header.chunk_bytes + TAG_BYTES):
        try:
            yield cipher.decrypt(_nonce(header.prefix, number, last), chunk, header.raw)
        except InvalidTag:
            raise EncryptionBroken(
                f"{path[:200]!a} was changed, cut or put together otherwise: chunk {number + 1} does not decrypt"
            ) from None


def read_header(source: BinaryIO, path: str) -> Header:
    """Raises EncryptionBroken."""
    start = source.read(_HEADER_AT + 2)
    if len(start) < _HEADER_AT + 2 or not start.startswith(MAGIC):
        raise EncryptionBroken(f"{path[:200]!a} is not an encrypted file, or was cut")
    slots = [start[_SLOTS_AT + SLOT_BYTES * n :][:SLOT_BYTES] for n in range(SLOTS)]
    length = int.from_bytes(start[_HEADER_AT:])
    raw = source.read(length)
    try:
        if len(raw) < length:
            raise ValueError("it was cut")
        return _parse(raw, slots)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EncryptionBroken(f"{path[:200]!a}: its header was changed or cut") from error


def rewrap(file: BinaryIO, ring: KeyRing, path: str) -> bool:
    """Have the first of the ring's keys open it, and no other. Returns whether another one did before.

    The file is open for reading and writing. Two slots are there so that at each moment one of both keys opens it, also
    if the machine stops in between. Raises EncryptionBroken, WrongKeyEncryptionKey.
    """
    header = read_header(file, path)
    new = ring.keys[0]
    key = ring.unwrap(header.slots, header.raw, repr(path))
    opened = [new.unwrap(slot, header.raw) is not None for slot in header.slots]
    if any(opened) and all(o or s == EMPTY_SLOT for o, s in zip(opened, header.slots, strict=True)):
        return False
    if not any(opened):
        # the one that opens nothing here gives way
        known = [ring_opens(ring, slot, header.raw) for slot in header.slots]
        free = known.index(False) if False in known else 1
        _write_slot(file, free, new.wrap(key, header.raw))
        opened[free] = True
    keep = opened.index(True)
    for number in range(SLOTS):
        if number != keep:
            _write_slot(file, number, EMPTY_SLOT)
    return True


def ring_opens(ring: KeyRing, slot: bytes, about: bytes) -> bool:
    """Whether a key of the ring opens the slot."""
    return any(key.unwrap(slot, about) is not None for key in ring.keys)


def _write_slot(file: BinaryIO, number: int, slot: bytes) -> None:
    file.seek(_SLOTS_AT + number * SLOT_BYTES)
    file.write(slot)
    file.flush()
    os.fsync(file.fileno())


def _numbered(source: BinaryIO, size: int) -> Iterator[tuple[int, bool, bytes]]:
    """Pieces of a file: number, whether it is the last, content. An empty file has one, an empty one."""
    piece = _read(source.read, size)
    for number in range(MAX_CHUNKS):
        following = _read(source.read, size) if len(piece) == size else b""
        yield number, not following, piece
        if not following:
            return
        piece = following
    raise EncryptionBroken(f"over {MAX_CHUNKS} chunks")


def _read(read: Callable[[int], bytes], size: int) -> bytes:
    """All of it, or what there is up to the end."""
    piece = read(size)
    while piece and len(piece) < size:
        more = read(size - len(piece))
        if not more:
            break
        piece += more
    return piece


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4) + bytes([last])


def _parse(raw: bytes, slots: Sequence[bytes]) -> Header:
    said: Any = json.loads(raw)
    chunk_bytes, prefix = said["chunk_bytes"], bytes.fromhex(said["prefix"])
    if not isinstance(chunk_bytes, int) or not 0 < chunk_bytes <= MAX_CHUNK_BYTES:
        raise ValueError("chunk_bytes")
    if len(prefix) != PREFIX_BYTES:
        raise ValueError("prefix")
    return Header(raw, slots, chunk_bytes, prefix, str(said["model"]), str(said["path"]))
