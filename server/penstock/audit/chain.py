"""Appends groups of records: each group is written, made durable, and then told in the head, or it is undone.

No descriptor stays open from one group to the next. The folder and its files are looked up anew each time, so that one
that was removed, replaced, or written by another process is noticed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import msgspec

from penstock.audit.folder import Folder, write_all
from penstock.audit.head import Reach, encode_head
from penstock.audit.lines import NO_HASH, Kind, encode
from penstock.audit.recovery import Place, Repair, take_up
from penstock.audit.signing import Signer
from penstock.audit_config import AuditSettings

_NS_PER_S: Final = 1_000_000_000

Entry = tuple[Kind, int, Any]
"""Kind, time in nanoseconds, and what its kind has."""


class Chain:
    """One writer of a log. Used by one thread."""

    def __init__(self, settings: AuditSettings, signer: Signer | None) -> None:
        assert settings.folder is not None
        self._path: Final = settings.folder
        self._settings: Final = settings
        self._signer = signer
        self._retired: Signer | None = None
        self._mode: Final = int(settings.file_mode, 8)
        self.place: Place = Place()
        """Where the log was when this writer wrote last."""

    def rekey(self, signer: Signer) -> None:
        """Sign by another key from now on, for which the one before vouches."""
        if self._signer is not None and self._signer.id != signer.id:
            self._retired = self._signer
        self._signer = signer

    @property
    def unsigned(self) -> int:
        """Records that no checkpoint covers yet."""
        return 0 if self._signer is None else self.place.seq - self.place.checkpoint

    def append(self, entries: Sequence[Entry], *, checkpoint: bool = False) -> int:
        """Make the records durable, all or none; with a checkpoint where one is due, or asked for. Returns how many
        were written. Raises OSError, Damaged.
        """
        self._make_folder()
        with Folder.locked(self._path) as folder:
            place, repairs = take_up(folder, self.place, self._signer)
            group = _Group(place or self._create(folder))
            self._begin(group, repairs)
            for kind, time_ns, fields in entries:
                group.add(kind, time_ns, fields)
            self._sign(group, asked=checkpoint)
            if group.lines:
                self._write(folder, group)
            self.place = group.place
        self._retired = None
        return len(group.lines)

    def _make_folder(self) -> None:
        """Only for a new log. One that has been removed is missed, rather than begun anew."""
        if self.place.log or self._path.is_dir():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.mkdir(mode=0o700 if self._mode == 0o600 else 0o750, exist_ok=True)

    def _create(self, folder: Folder) -> Place:
        """Begin a log: with a head from its first record on, so that one without a head has been tampered with."""
        log = uuid4().hex
        group = _Group(Place(log, 0, NO_HASH, 0, 0, 0, time.time_ns(), ""))
        group.add("open", time.time_ns(), {"log": log, "file": 1})
        group.is_new_file = True
        self._write(folder, group)
        folder.sync()
        return group.place

    def _begin(self, group: _Group, repairs: Iterable[Repair]) -> None:
        """What comes before the records: the next file, what was repaired, and a key that signs from here on."""
        now = time.time_ns()
        place = group.place
        if place.end >= self._settings.rotate_bytes:
            group.is_new_file = True
            group.add("file", now, {"log": place.log, "file": place.file + 1})
        for repair in repairs:
            fields = {"file": repair.file, "cut_bytes": repair.cut_bytes, "digest": repair.digest}
            group.add("repair", now, fields)
        signer = self._signer
        if signer is not None and (place.key != signer.id):
            group.add("key", now, _key_fields(place.log, signer, self._retired))
            place.key = signer.id

    def _sign(self, group: _Group, *, asked: bool) -> None:
        place = group.place
        signer = self._signer
        if signer is None:
            place.key = ""
            return
        now = time.time_ns()
        count = place.seq - place.checkpoint
        age_s = (now - place.checkpoint_ns) / _NS_PER_S
        settings = self._settings
        is_due = count >= settings.checkpoint_records or age_s >= settings.checkpoint_secs
        if count and (asked or is_due):
            seq = place.seq + 1
            signature = signer.sign("checkpoint", place.log, str(seq), place.last)
            fields = {"log": place.log, "key": signer.id, "signature": signature}
            group.add("checkpoint", now, fields)
            place.checkpoint, place.checkpoint_ns = seq, now

    def _write(self, folder: Folder, group: _Group) -> None:
        """Records, then head. Raises OSError; then there are none of both."""
        place = group.place
        start = 0 if group.is_new_file else place.end
        number = place.file + group.is_new_file
        flags = os.O_WRONLY | (os.O_CREAT | os.O_EXCL if group.is_new_file else 0)
        descriptor = folder.open(number, flags, self._mode)
        try:
            if group.is_new_file:
                os.fchmod(descriptor, self._mode)
            os.lseek(descriptor, start, os.SEEK_SET)
            data = b"".join(group.lines)
            write_all(descriptor, data)
            os.fdatasync(descriptor)
            if group.is_new_file:
                folder.sync()
            place.file, place.end = number, start + len(data)
            folder.write_head(self._head(place), self._mode)
        except OSError:
            _undo(folder, descriptor, number, start, is_new=group.is_new_file)
            raise
        finally:
            os.close(descriptor)

    def _head(self, place: Place) -> bytes:
        reach = Reach(
            log=place.log,
            seq=place.seq,
            last=place.last,
            file=place.file,
            end=place.end,
            checkpoint=place.checkpoint,
            checkpoint_ns=place.checkpoint_ns,
        )
        # the first head of a log comes before the record that names the key
        return encode_head(reach, self._signer if place.key else None)


class _Group:
    """Records that become durable together, and where the log is after them."""

    def __init__(self, place: Place) -> None:
        self.place: Final = replace(place)
        self.lines: Final[list[bytes]] = []
        self.is_new_file = False

    def add(self, kind: Kind, time_ns: int, fields: msgspec.Struct | dict[str, Any]) -> None:
        """Add the next record."""
        place = self.place
        line, place.last = encode(place.seq + 1, place.last, kind, time_ns, fields)
        place.seq += 1
        self.lines.append(line)


def _key_fields(log: str, signer: Signer, before: Signer | None) -> dict[str, str]:
    """A key proves that it is there by signing itself, and that it may be by its predecessor's signature."""
    public = signer.verifier.public
    fields = {"log": log, "key": signer.id, "public": public}
    fields["signature"] = signer.sign("key", log, public)
    if before is not None:
        fields["endorsed_by"] = before.id
        fields["endorsement"] = before.sign("endorse", log, public)
    return fields


def _undo(folder: Folder, descriptor: int, number: int, start: int, *, is_new: bool) -> None:
    """Take a group back that isn't durable as a whole. What this can't do the next writer does."""
    with contextlib.suppress(OSError):
        if is_new:
            folder.unlink(number)
        else:
            os.ftruncate(descriptor, start)
            os.fdatasync(descriptor)
