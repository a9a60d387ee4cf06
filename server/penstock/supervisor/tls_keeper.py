"""Keeps what TLS is spoken with up to date: takes over what the settings' files turn into, if it is good.

A change is looked at once its writer has finished. What is not good is refused, and said; the old goes on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from penstock.errors import ConfigError
from penstock.gateway.tls_files import TlsFiles
from penstock.secrets.source import SecretSource
from penstock.supervisor.file_events import FileEvents
from penstock.supervisor.tls_material import TlsMaterial, read_material, utc_now
from penstock.supervisor.tls_store import TlsStore
from penstock.tls_config import TlsSettings
from penstock.workers.supervisor_messages import TlsState

LOOK_S: Final = 5.0
"""Files are looked at so often, whether one has heard of a change or not: network file systems tell of none."""
QUIET_S: Final = 0.1
"""What was not touched for so long is whole, where it is known that nobody writes it."""
SETTLED_S: Final = 2.0
"""… and where that is not known. What is no good is not refused before: the key may come after its certificate."""
RETRY_S: Final = 60.0
"""What was refused is looked at again, for all that it may want is time: its first day is still to come."""
WRITER_PATIENCE_S: Final = 30.0
"""A writer that does nothing for so long has gone."""
ALMOST_OVER: Final = 0.1
"""A certificate that has less than this share of its life before it is warned of."""

_OTHERS: Final = 0o007

_log = logging.getLogger(__name__)

Mark = tuple[tuple[int, int, int, int] | None, ...]
"""What tells whether files have changed."""


class TlsKeeper:
    """One a server with TLS. `open`, then `run` for as long as it serves."""

    def __init__(
        self, settings: TlsSettings, files: TlsFiles, secrets: SecretSource | None = None
    ) -> None:
        """`secrets`: where the key's passphrase is, if it has one."""
        self._secrets = secrets
        self.on_change: Callable[[TlsState], None] = _nobody
        """Called with each new state."""
        self._settings = settings
        self._store = TlsStore(settings, files)
        self._material: TlsMaterial
        self._rotations = 0
        self._refused = 0
        self._refusal = ""
        self._handled: Mark = ()
        self._again_at = math.inf
        self._pending: Mark = ()
        self._pending_since = 0.0
        self._warned_of = ""

    @property
    def state(self) -> TlsState:
        """What the metrics tell."""
        return TlsState(
            self._material.expires_at,
            self._material.client_ca_expires_at,
            self._rotations,
            self._refused,
        )

    def open(self) -> None:
        """Take what there is at the start. Raises ConfigError with file, and what is wrong with it."""
        self._handled = self._pending = self._mark()
        self._material = self._read()
        self._store.put(self._material)
        self._warn_of_the_key()

    async def run(self) -> None:
        """Follow the files until cancelled."""
        events = FileEvents(self._settings.files)
        try:
            while True:
                # the first look comes after one listens: nothing is missed between the two
                await events.wait(0 if not self._pending_since else self._patience_s(events))
                self._look(events, asyncio.get_running_loop().time())
                self._warn_of_the_end()
        finally:
            events.close()

    def _read(self) -> TlsMaterial:
        reference, passphrase = self._settings.key_passphrase, None
        if reference is not None and self._secrets is not None:
            try:
                passphrase = self._secrets.get(reference)
            except ConfigError as error:
                raise ConfigError(f"tls.key_passphrase: {error}") from error
        return read_material(self._settings, utc_now(), passphrase)

    def _patience_s(self, events: FileEvents) -> float:
        if self._pending == self._handled:
            return LOOK_S
        return self._wait_s(events)

    def _wait_s(self, events: FileEvents) -> float:
        """For how long what has changed must not be touched before it counts as whole."""
        files = self._settings.files
        if any(events.being_written(file) for file in files):
            return WRITER_PATIENCE_S
        return QUIET_S if all(events.hears(file) for file in files) else SETTLED_S

    def _look(self, events: FileEvents, now_s: float) -> None:
        mark = self._mark()
        if mark != self._pending or not self._pending_since:
            self._pending, self._pending_since = mark, now_s
        if mark == self._handled and now_s < self._again_at:
            return
        waited_s = now_s - self._pending_since
        if waited_s < self._wait_s(events):
            return
        try:
            material = self._read()
            if self._mark() != mark:
                return
            self._take(material)
        except ConfigError as error:
            if waited_s < SETTLED_S:
                return
            if mark != self._handled or str(error) != self._refusal:
                self._refuse(error)
            self._again_at = now_s + RETRY_S
        else:
            self._again_at = math.inf
        self._handled = mark

    def _take(self, material: TlsMaterial) -> None:
        if material == self._material:
            return
        self._store.put(material)
        old, self._material = self._material, material
        self._rotations += 1
        self._warn_of_the_key()
        if material.serial != old.serial:
            until = datetime.fromtimestamp(material.expires_at, UTC)
            _log.info(
                "TLS: a new certificate is served: %s, serial %s, until %s UTC",
                material.subject,
                material.serial,
                f"{until:%Y-%m-%d %H:%M:%S}",
            )
        if material.client_ca != old.client_ca:
            _log.info("TLS: other CAs of clients are trusted, of %s", self._settings.client_ca_file)
        self.on_change(self.state)

    def _refuse(self, error: ConfigError) -> None:
        self._refused += 1
        self._refusal = str(error)
        until = datetime.fromtimestamp(self._material.expires_at, UTC)
        _log.error(
            "TLS: the new files are refused, the old ones go on, until %s UTC: %s",
            f"{until:%Y-%m-%d %H:%M:%S}",
            error,
        )
        self.on_change(self.state)

    def _warn_of_the_end(self) -> None:
        own = self._material
        left_s = own.expires_at - utc_now().timestamp()
        if (
            left_s < ALMOST_OVER * (own.expires_at - own.starts_at)
            and self._warned_of != own.serial
        ):
            self._warned_of = own.serial
            _log.warning(
                "TLS: the certificate ends in %d s: clients will refuse this server. Put a new one"
                " into %s",
                max(0, left_s),
                self._settings.cert_file,
            )

    def _warn_of_the_key(self) -> None:
        path = self._settings.key_file
        assert path is not None
        mode = path.stat().st_mode if path.exists() else 0
        if mode & _OTHERS:
            _log.warning(
                "tls.key_file: %s may be read or written by every user of this machine (mode %o):"
                " expected 600",
                path,
                mode & 0o777,
            )

    def _mark(self) -> Mark:
        return tuple(map(_mark_of, self._settings.files))


def _mark_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _nobody(state: TlsState) -> None:
    """Nobody listens yet."""
