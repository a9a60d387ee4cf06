"""Reads events of a log: filtered, or the last ones. Trusts what it reads: `verify` is for those who don't."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from penstock.audit.event import Outcome
from penstock.audit.folder import HEAD, Folder, file_name
from penstock.audit.head import Head, decode_head
from penstock.audit.lines import MAX_LINE_BYTES, Record, decode, timestamp
from penstock.errors import ConfigError, InvalidRequest

MAX_LIMIT: Final = 10_000
OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
_FIELDS: Final = (
    *("seq", "time", "kind", "action", "outcome", "principal", "tenant", "model", "reason"),
    *("request_id", "client", "details", "lost", "problem", "file", "cut_bytes", "key", "hash"),
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted. Empty: all."""

    tenant: str = ""
    action: str = ""
    """The action, or its first part: `model` has `model.load` too. Of records that are no events: their kind."""
    outcome: str = ""
    since_seq: int = 0
    """Records after this one."""
    since_time: str = ""
    """Records of this time or later, as `timestamp` writes it."""
    limit: int = 100
    """So many at most, the last ones; with `since_seq` the first ones."""

    def wants(self, record: Record) -> bool:
        """Whether it is one of them."""
        return (
            record.seq > self.since_seq
            and record.time >= self.since_time
            and (not self.tenant or record.tenant == self.tenant)
            and (not self.outcome or record.outcome == self.outcome)
            and (not self.action or f"{record.what}.".startswith(f"{self.action}."))
        )


def records(
    path: Path, wanted: Filter, readable: Callable[[Record], bool] = lambda record: True
) -> list[Record]:
    """The records that are wanted and readable, oldest first. Raises ConfigError where there is no log, or a line of it
    can't be read."""
    every = _all(path, wanted.since_seq)
    found = (record for record in every if wanted.wants(record) and readable(record))
    if wanted.since_seq:
        return [record for record, _ in zip(found, range(wanted.limit), strict=False)]
    return list(deque(found, wanted.limit))


def as_dict(record: Record) -> dict[str, Any]:
    """What a reader is shown: what the record has."""
    values = ((name, getattr(record, name)) for name in _FIELDS)
    return {name: value for name, value in values if value not in ("", 0, {})}


def parse_outcome(text: str) -> str:
    """One of those that records have; empty: all. Raises InvalidRequest."""
    if text and text not in OUTCOMES:
        raise InvalidRequest(f"outcome is '{text[:40]}', expected one of {', '.join(OUTCOMES)}")
    return text


def parse_time(text: str) -> str:
    """A time as records have it, to compare with. Raises InvalidRequest."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"'{text[:40]}' is not a time, expected one such as 2026-11-28T04:00:00Z"
        ) from None
    utc = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    return timestamp(int(utc.timestamp()) * 1_000_000_000 + utc.microsecond * 1000)


def _all(path: Path, since_seq: int) -> Iterator[Record]:
    try:
        with Folder.locked(path, shared=True) as folder:
            line = folder.read_head()
            numbers = folder.numbers()
            if line is None:
                raise ConfigError(f"{path}: there is no audit log in this folder")
            head = decode_head(line)
            first = _first(folder, numbers, since_seq)
            descriptors = [
                (n, folder.open(n, os.O_RDONLY)) for n in numbers if first <= n <= head.file
            ]
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path / HEAD}: {error}") from error
    try:
        for number, descriptor in descriptors:
            yield from _of_file(path, number, descriptor, head)
    finally:
        for _, descriptor in descriptors:
            os.close(descriptor)


def _first(folder: Folder, numbers: list[int], since_seq: int) -> int:
    """The file that has the record after that number: the last one that begins no later."""
    if not since_seq:
        return 1
    for number in reversed(numbers):
        descriptor = folder.open(number, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            try:
                if decode(file.readline(MAX_LINE_BYTES)).seq <= since_seq + 1:
                    return number
            except ValueError:
                continue
    return 1


def _of_file(path: Path, number: int, descriptor: int, head: Head) -> Iterator[Record]:
    at = 0
    with open(descriptor, "rb", closefd=False) as file:
        for position, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            if number == head.file and at >= head.end:
                return
            at += len(line)
            try:
                yield decode(line)
            except ValueError as error:
                raise ConfigError(
                    f"{path / file_name(number)}:{position}: not a record: {error}"
                ) from error
