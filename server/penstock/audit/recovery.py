"""Where to go on writing: at the head. What lies behind it was not finished, and nobody was told that it is recorded.

A writer makes its records durable before it says so in the head, so no crash leaves fewer records than the head says.
And what somebody else has put behind the head is not taken over: this writer's signature would cover it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from penstock.audit.folder import HEAD, Folder, file_name, write_all
from penstock.audit.head import Head, decode_head
from penstock.audit.lines import MAX_LINE_BYTES, is_sealed
from penstock.audit.signing import Signer

_CHUNK_BYTES: Final = 1 << 20


class Damaged(Exception):
    """The log isn't what its head says. It is evidence now: nothing is written after it."""


@dataclass(slots=True)
class Place:
    """After which record, and where, the next one comes."""

    log: str = ""
    seq: int = 0
    last: str = ""
    file: int = 0
    end: int = 0
    checkpoint: int = 0
    checkpoint_ns: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Repair:
    """An unfinished write that has been cut off."""

    file: int
    cut_bytes: int
    digest: str


def take_up(
    folder: Folder, known: Place, signer: Signer | None
) -> tuple[Place | None, list[Repair]]:
    """Where the log goes on, and what had to be cut off for it; no place: there is no log yet.

    `known`: where this writer was before. Raises Damaged, OSError.
    """
    line = folder.read_head()
    if line is None:
        return None, _check_new(folder, known)
    try:
        head = decode_head(line)
    except ValueError as error:
        raise Damaged(f"{HEAD}: {error}") from error
    if signer is not None and head.key == signer.id and not head.is_signed_by(signer.verifier):
        raise Damaged(f"{HEAD}: its signature does not hold")
    if known.log and (head.log != known.log or head.seq < known.seq):
        raise Damaged(f"{HEAD}: another or an older log has been put in this one's place")
    place = Place(
        head.log,
        head.seq,
        head.last,
        head.file,
        head.end,
        head.checkpoint,
        head.checkpoint_ns,
        head.key,
    )
    _check_end(folder, head)
    return place, _cut(folder, place)


def _check_new(folder: Folder, known: Place) -> list[Repair]:
    """No head: that is right only where no log has been. A crash while it was made leaves one record at most."""
    if known.log:
        raise Damaged(f"{HEAD} has been removed")
    numbers = folder.numbers()
    if not numbers:
        return []
    descriptor = folder.open(1, os.O_RDONLY) if numbers == [1] else -1
    try:
        data = os.read(descriptor, MAX_LINE_BYTES) if descriptor >= 0 else b""
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if numbers != [1] or data.find(b"\n") not in (-1, len(data) - 1):
        raise Damaged(f"{HEAD} is missing")
    folder.unlink(1)
    return [Repair(1, len(data), sha256(data).hexdigest())]


def _check_end(folder: Folder, head: Head) -> None:
    """The head's record has to be where it says."""
    try:
        descriptor = folder.open(head.file, os.O_RDONLY)
    except FileNotFoundError:
        raise Damaged(f"{file_name(head.file)} is missing") from None
    try:
        start = max(head.end - MAX_LINE_BYTES, 0)
        data = os.pread(descriptor, head.end - start, start)
    finally:
        os.close(descriptor)
    line = data[data.rfind(b"\n", 0, -1) + 1 :]
    is_whole = len(data) == head.end - start and is_sealed(line)
    if not is_whole or f'"hash":"{head.last}"}}\n'.encode() not in line:
        raise Damaged(
            f"{file_name(head.file)}: record {head.seq} does not end at byte {head.end},"
            f" where {HEAD} has it"
        )


def _cut(folder: Folder, place: Place) -> list[Repair]:
    """Cut off what comes after the head, and keep it in a file of its own."""
    repairs: list[Repair] = []
    descriptor = folder.open(place.file, os.O_RDWR)
    try:
        rest = os.fstat(descriptor).st_size - place.end
        if rest:
            digest = _keep(folder, place, descriptor)
            os.ftruncate(descriptor, place.end)
            os.fdatasync(descriptor)
            repairs.append(Repair(place.file, rest, digest))
    finally:
        os.close(descriptor)
    for number in folder.numbers():
        if number > place.file:
            repairs.append(_set_aside(folder, place, number))
    return repairs


def _keep(folder: Folder, place: Place, descriptor: int) -> str:
    """Copy the beginning of it. Returns the digest of all."""
    digest = sha256()
    at = place.end
    copy = folder.create_aside(unfinished_name(place.file, place.seq))
    try:
        while data := os.pread(descriptor, _CHUNK_BYTES, at):
            if at == place.end:
                write_all(copy, data)
            digest.update(data)
            at += len(data)
    finally:
        os.close(copy)
    return digest.hexdigest()


def _set_aside(folder: Folder, place: Place, number: int) -> Repair:
    """A file that was begun, and no head has told of."""
    descriptor = folder.open(number, os.O_RDONLY)
    try:
        digest, size = sha256(), 0
        while data := os.pread(descriptor, _CHUNK_BYTES, size):
            digest.update(data)
            size += len(data)
    finally:
        os.close(descriptor)
    folder.rename_aside(number, unfinished_name(number, place.seq))
    return Repair(number, size, digest.hexdigest())


def unfinished_name(number: int, seq: int) -> str:
    """Where what was cut off after a record is kept."""
    return f"{file_name(number)}.unfinished-after-{seq}"
