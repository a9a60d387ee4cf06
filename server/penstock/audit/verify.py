"""Finds what has been changed in a log: any flipped, dropped, reordered, repeated or cut off record.

Files are read once, line by line: memory does not grow with the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from penstock.audit.folder import HEAD, Folder, file_name
from penstock.audit.head import Head, decode_head
from penstock.audit.lines import (
    MAX_LINE_BYTES,
    NO_HASH,
    Record,
    begin,
    decode,
    is_sealed,
)
from penstock.audit.signatures import Signatures
from penstock.audit.signing import Verifier
from penstock.errors import ConfigError
from penstock.wording import counted

MAX_PROBLEMS: Final = 100
"""Those that come after are only counted."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    file: str
    line: int
    """0: the file as a whole."""
    seq: int
    """Of the record that is there, or should be; 0: unknown."""
    text: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        record = f" record {self.seq}:" if self.seq else ""
        return f"{self.file}{line}:{record} {self.text}"


class Verdict(msgspec.Struct, kw_only=True):
    """What was found."""

    folder: str
    problems: list[Problem] = []
    more_problems: int = 0
    notes: list[str] = []
    """What is no damage, but should be known."""
    files: int = 0
    records: int = 0
    checkpoints: int = 0
    signed_up_to: int = 0
    """The last record that a signature covers."""
    anchor: str = ""
    """SEQ:HASH of the last record, for `--at-least`."""

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(
    path: Path, trusted: Iterable[Verifier] = (), at_least: tuple[int, str] | None = None
) -> Verdict:
    """Check a log. `trusted`: keys to be believed; none: those that the log itself names. `at_least`: a record that it
    has to have. Raises ConfigError where there is no log.
    """
    try:
        with Folder.locked(path, shared=True) as folder:
            head = folder.read_head()
            numbers = folder.numbers()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    if head is None and not numbers:
        raise ConfigError(f"{path}: there is no audit log in this folder")
    folder = Folder(path)
    try:
        return _Check(folder, list(trusted), at_least).run(head, numbers)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    finally:
        os.close(folder.descriptor)


class _Check:
    """One verification."""

    def __init__(
        self, folder: Folder, trusted: list[Verifier], at_least: tuple[int, str] | None
    ) -> None:
        self._folder: Final = folder
        self._signatures: Final = Signatures(trusted)
        self._at_least: Final = at_least
        self._reached_at_least = False
        self.verdict: Final = Verdict(folder=str(folder.path))
        self._seq, self._last = 0, NO_HASH
        self._log = ""
        self._head_is_met = False
        self._unfinished = False

    def run(self, head_line: bytes | None, numbers: list[int]) -> Verdict:
        head = self._head(head_line)
        self._check_numbers(numbers, head)
        for number in numbers:
            if head is None or number <= head.file:
                self._check_file(number, head)
        if head is not None:
            self._check_end(head)
            self._check_rest(head, numbers)
        self._check_anchor()
        self.verdict.anchor = f"{self._seq}:{self._last}"
        return self.verdict

    # ── the head ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _head(self, line: bytes | None) -> Head | None:
        if line is None:
            self._wrong(HEAD, 0, 0, "missing: the end of the log may have been cut off")
            return None
        try:
            return decode_head(line)
        except ValueError as error:
            self._wrong(HEAD, 1, 0, f"changed: {error}")
            return None

    def _check_end(self, head: Head) -> None:
        if self._log and head.log != self._log:
            self._wrong(HEAD, 1, head.seq, "of another log")
        elif not self._log and self.verdict.is_whole:
            self._wrong(HEAD, 1, head.seq, "of a log that has no records here")
        if self._seq < head.seq:
            missing = _range(self._seq + 1, head.seq)
            self._wrong(file_name(head.file), 0, self._seq + 1, f"{missing} missing at the end")
        elif (self._seq, self._last) != (head.seq, head.last) or not self._head_is_met:
            self._wrong(HEAD, 1, head.seq, f"the log ends with another record, {self._seq}")
        problem, note = self._signatures.head(head)
        if problem:
            self._wrong(HEAD, 1, head.seq, problem)
        elif self._signatures.believes(head.key):
            self.verdict.signed_up_to = head.seq
        self.verdict.notes += [*self._signatures.notes, *([note] if note else [])]

    def _check_anchor(self) -> None:
        if self._at_least is not None and not self._reached_at_least:
            seq, digest = self._at_least
            text = f"not the record with hash {digest[:16]}… that was asked for by --at-least"
            if seq > self._seq:
                text = f"the log has only {self._seq} records: an older copy, or its end is cut off"
            self._wrong(self.verdict.folder, 0, seq, text)

    def _check_rest(self, head: Head, numbers: Iterable[int]) -> None:
        """What comes after the head's record: an interrupted writer leaves the records that come next there, perhaps
        the last one only in part. Anything else somebody has put there."""
        seq, last = head.seq, head.last
        for number in numbers:
            if number < head.file:
                continue
            with open(self._folder.open(number, os.O_RDONLY), "rb") as file:
                file.seek(head.end if number == head.file else 0)
                for line in _lines(file):
                    start = begin(seq + 1, last)
                    if not line.startswith(start[: len(line)]):
                        text = (
                            f"not the record that comes after record {seq}, with which the log ends"
                        )
                        self._wrong(file_name(number), 0, 0, text)
                        return
                    if is_sealed(line):
                        seq, last = seq + 1, line[-67:-3].decode()
                    self._unfinished = True
        if self._unfinished:
            self.verdict.notes.append(
                f"an interrupted write after record {head.seq} is no part of the log: the next writer sets it aside"
            )

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_numbers(self, numbers: list[int], head: Head | None) -> None:
        last = max([*numbers, head.file if head else 0])
        there = set(numbers)
        # of a number that somebody made up there may be a billion before
        gaps = (n for n in range(1, last + 1) if n not in there)
        for number, _ in zip(gaps, range(MAX_PROBLEMS), strict=False):
            self._wrong(file_name(number), 0, 0, "the file is missing")

    def _check_file(self, number: int, head: Head | None) -> None:
        name = file_name(number)
        self.verdict.files += 1
        end = head.end if head is not None and number == head.file else -1
        descriptor = self._folder.open(number, os.O_RDONLY)
        with open(descriptor, "rb", buffering=1 << 18) as file:
            at = 0
            for position, line in enumerate(_lines(file), 1):
                at += len(line)
                if 0 <= end < at:
                    if at - len(line) >= end:
                        return
                    self._wrong(name, position, 0, f"the line goes beyond byte {end}")
                self._check_line(name, number, position, line)
                if at == end:
                    self._head_is_met = True
        if not at:
            self._wrong(name, 0, 0, "the file is empty")

    def _check_line(self, name: str, number: int, position: int, line: bytes) -> None:
        self.verdict.records += 1
        seq, last = self._seq + 1, self._last
        if not line.startswith(begin(seq, last)) or not is_sealed(line):
            self._diagnose(name, position, line)
            return
        try:
            record = decode(line)
        except ValueError as error:
            self._wrong(name, position, seq, f"not a record: {error}")
            self._seq += 1
            return
        self._seq, self._last = seq, record.hash
        if self._at_least == (seq, record.hash):
            self._reached_at_least = True
        if position == 1 or record.kind != "event":
            self._check_special(name, number, position, record, last)

    def _check_special(
        self, name: str, number: int, position: int, record: Record, last: str
    ) -> None:
        first = "open" if number == 1 else "file"
        begins = record.kind in ("open", "file")
        if (position == 1) != begins or (begins and (record.kind, record.file) != (first, number)):
            self._wrong(name, position, record.seq, f"not a record that file {number} begins with")
        if record.kind == "open" or not self._log:
            # where the first file is lost, the next one says which log it is
            self._log = record.log
        elif record.log and record.log != self._log:
            self._wrong(name, position, record.seq, "of another log")
        if record.kind == "checkpoint":
            self.verdict.checkpoints += 1
        if problem := self._signatures.record(record, last):
            self._wrong(name, position, record.seq, problem)
        elif record.kind == "checkpoint" and self._signatures.believes(record.key):
            self.verdict.signed_up_to = record.seq
        if record.kind == "resumed":
            self.verdict.notes.append(f"record {record.seq}: {_outage(record)}")
        if record.kind == "repair":
            self.verdict.notes.append(
                f"record {record.seq}: an unfinished write of {record.cut_bytes} bytes before it was cut off"
            )

    def _diagnose(self, name: str, position: int, line: bytes) -> None:
        """Say what is wrong with a line, and go on after it."""
        expected, last = self._seq + 1, self._last
        if not line.endswith(b"\n"):
            long = len(line) >= MAX_LINE_BYTES
            text = "the line is too long" if long else "the line is cut off"
            self._wrong(name, position, expected, text)
            return
        try:
            record = decode(line)
        except ValueError:
            self._wrong(name, position, expected, "changed: the line is not a record any more")
            self._seq = expected
            return
        if not is_sealed(line):
            text = "changed: its hash is not that of its content"
            self._wrong(name, position, expected, text)
            # its own number may be what was changed, and its hash, that the next one names, too
            self._seq, self._last = expected, record.hash
            return
        if record.seq > expected:
            self._wrong(name, position, expected, f"{_range(expected, record.seq - 1)} missing")
        elif record.seq < expected:
            self._wrong(name, position, record.seq, f"repeated or moved: expected {expected} here")
            return
        elif record.prev != last:
            text = f"does not follow record {expected - 1}: that, or this one, has been replaced"
            self._wrong(name, position, record.seq, text)
        self._seq, self._last = record.seq, record.hash

    def _wrong(self, file: str, line: int, seq: int, text: str) -> None:
        if len(self.verdict.problems) < MAX_PROBLEMS:
            self.verdict.problems.append(Problem(file, line, seq, text))
        else:
            self.verdict.more_problems += 1


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, none longer than MAX_LINE_BYTES: a longer one comes in pieces."""
    while line := file.readline(MAX_LINE_BYTES):
        yield line


def _outage(record: Record) -> str:
    """What is missing of the time before it."""
    missing = f"{counted(record.lost, 'event')} of that time missing"
    if not record.lost:
        missing = "nothing that was done is missing; requests that were refused because of it are not in the log"
    why = f" ({record.problem})" if record.problem else ""
    return f"before it the log could not be written for a while{why}: {missing}"


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
