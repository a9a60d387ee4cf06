"""The newest release of each version that was ever served: an older one in its place is a downgrade.

A file that only this user may read. It is looked at anew at each load: `penstock models trust reset` holds at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from penstock.errors import Downgraded, ReleasesUnreadable

MAX_BYTES: Final = 64 << 20


class Served(msgspec.Struct, frozen=True):
    """A release that was served."""

    serial: int
    digest: str
    """Of its manifest."""
    shared: str = ""
    """Of what all versions share, the configuration among it; empty: it is not known."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, dict[str, Served]] = {}
    """Model → version → its newest release."""
    format: int = 1


class Releases:
    """The record. Its methods block."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def check(
        self,
        model: str,
        version: int,
        release: Served,
        present: Collection[int],
        *,
        rollback: bool = False,
    ) -> None:
        """`present`: the model's versions that are there. Raises Downgraded, and ReleasesUnreadable."""
        known = self.of(model)
        if rollback:
            return
        newest = known.get(str(version))
        if newest is not None and release.serial < newest.serial:
            raise Downgraded(
                f"its release has the serial {release.serial}, and {newest.serial} was served before"
            )
        if (
            newest is not None
            and release.serial == newest.serial
            and release.digest != newest.digest
        ):
            raise Downgraded(
                f"its release has the serial {release.serial}, with which other files were served before; "
                "expected a higher one"
            )
        _check_shared(release, known.values())
        above = [int(number) for number in known if int(number) > version]
        if gone := sorted(set(above) - set(present)):
            raise Downgraded(
                f"version {gone[-1]} was served before and is not there any more; expected it, or that "
                "`penstock models trust reset` was told of it"
            )

    def record(self, model: str, version: int, release: Served) -> None:
        """It is served now. Raises ReleasesUnreadable."""
        with self._locked():
            models = self._read()
            newest = models.get(model, {}).get(str(version))
            if newest is not None and newest.serial >= release.serial:
                return
            models.setdefault(model, {})[str(version)] = release
            self._write(models)

    def of(self, model: str) -> Mapping[str, Served]:
        """Version → its newest release. Raises ReleasesUnreadable."""
        return self._read().get(model, {})

    def all(self) -> Mapping[str, Mapping[str, Served]]:
        """Of all models. Raises ReleasesUnreadable."""
        return self._read()

    def reset(self, model: str, version: int | None = None) -> bool:
        """Forget a model, or one version of it. Returns whether it was known. Raises ReleasesUnreadable."""
        with self._locked():
            models = self._read()
            if version is None:
                known = models.pop(model, None) is not None
            else:
                known = models.get(model, {}).pop(str(version), None) is not None
            if known:
                self._write(models)
            return known

    def _read(self) -> dict[str, dict[str, Served]]:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(error.strerror or "", error) from error
        try:
            found = msgspec.json.decode(content, type=_File).models
            return {name: {str(int(n)): s for n, s in each.items()} for name, each in found.items()}
        except (msgspec.DecodeError, ValueError) as error:
            raise self._unreadable(str(error), error) from error

    def _write(self, models: dict[str, dict[str, Served]]) -> None:
        content = msgspec.json.format(msgspec.json.encode(_File(models)), indent=1)
        try:
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".releases-")
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(name, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            raise self._unreadable(error.strerror or "", error) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes."""
        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unreadable(error.strerror or "", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _unreadable(self, why: str, error: Exception) -> ReleasesUnreadable:
        return ReleasesUnreadable(f"the record of releases that were served can't be used: {why}")


def _check_shared(release: Served, known: Collection[Served]) -> None:
    """An older configuration may be signed with an older version, and say that this one is to be served. Raises
    Downgraded."""
    newest = max(known, key=lambda each: each.serial, default=release)
    if newest.shared not in ("", release.shared) and release.serial < newest.serial:
        raise Downgraded(
            f"its release has the serial {release.serial}, and its configuration, or what else all versions share, is "
            f"not that of the release {newest.serial}, which was served before"
        )
