"""Where the keys of an issuer come from: its server, a file, or a secret. What there is can always be had at once."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from penstock.access.bounded_get import BoundedGet, FetchFailed
from penstock.access.fetch_schedule import FetchSchedule
from penstock.access.jwk_set import KeySet, parse_key_set, secret_key_set
from penstock.access.jwt_text import read_json_object
from penstock.errors import ConfigError
from penstock.jwt_config import JwtIssuer, is_trustworthy_url
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef

_log = logging.getLogger(__name__)

_NO_KEYS: Final = KeySet()
JOIN_S: Final = 2.0
"""How long `close` waits for a fetch that looks up a name, which can't be broken off."""

ReadSecret = Callable[[SecretRef], Secret]
"""Where a secret is → what it is now. Quick but for the first time; raises ConfigError if there is none."""


class Reads(msgspec.Struct):
    """How it went to get an issuer's keys, for metrics."""

    succeeded: int = 0
    failed: int = 0
    succeeded_at: float = 0.0
    """Unix seconds; 0: never."""

    def success(self) -> None:
        """They are here."""
        self.succeeded += 1
        self.succeeded_at = time.time()

    def failure(self) -> None:
        """They are not."""
        self.failed += 1


class KeySource(Protocol):
    """An issuer's keys."""

    @property
    def reads(self) -> Reads:
        """How it went so far."""
        ...

    @property
    def keys(self) -> KeySet:
        """Those that hold now."""
        ...

    @property
    def version(self) -> int:
        """Grows whenever `keys` are others."""
        ...

    @property
    def is_pending(self) -> bool:
        """Whether nobody knows the keys yet, or any more."""
        ...

    def start(self) -> None:
        """Get the first keys. Raises ConfigError if there can't be any."""
        ...

    def refresh(self) -> None:
        """See whether they have changed, if that is quick."""
        ...

    def ask(self) -> None:
        """A token names a key that is not there."""
        ...

    def close(self) -> None:
        """The end of threads and connections."""
        ...


def key_source(issuer: JwtIssuer, read_secret: ReadSecret) -> KeySource:
    """What the issuer's configuration says."""
    if issuer.secret is not None:
        return SecretKeys(issuer, issuer.secret, read_secret)
    if issuer.jwks_file is not None:
        return FileKeys(issuer, issuer.jwks_file)
    return RemoteKeys(issuer)


class RemoteKeys:
    """Fetched by a thread: at the start, by an interval, and when a token names a key that is not known."""

    def __init__(self, issuer: JwtIssuer, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._clock = issuer, clock
        self._get = BoundedGet(issuer.fetch_timeout_secs, issuer.max_jwks_bytes, issuer.ca_file)
        self._schedule = FetchSchedule(
            issuer.refresh_secs, issuer.refresh_min_secs, issuer.keep_keys_secs
        )
        self._changed = threading.Condition()
        """Guards the schedule, and wakes the thread."""
        self._thread: threading.Thread | None = None
        self._closed = False
        self.keys = _NO_KEYS
        self.version = 0
        self.reads = Reads()

    @property
    def is_pending(self) -> bool:
        return not self.keys.keys

    def start(self) -> None:
        try:
            self._get.check()
        except (OSError, ValueError) as error:
            reason = _explained(error)
            raise ConfigError(
                f"{self._issuer.ca_file}: can't be read as certificates: {reason}"
            ) from None
        self._thread = threading.Thread(target=self._run, name="jwks", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        pass

    def ask(self) -> None:
        with self._changed:
            before = self._schedule.due_at()
            self._schedule.ask()
            if self._schedule.due_at() < before:
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._get.close()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (step := self._next_step()) is not None:
            step()

    def _next_step(self) -> Callable[[], None] | None:
        """Wait until something is due; None: the end."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                if self._schedule.are_stale(now):
                    self._schedule.dropped()
                    self._publish(_NO_KEYS)
                    return self._tell_dropped
                if self._schedule.due_at() <= now:
                    self._schedule.started(now)
                    return self._fetch
                self._changed.wait(min(self._schedule.wake_at() - now, threading.TIMEOUT_MAX))
        return None

    def _fetch(self) -> None:
        try:
            keys = self._fetched()
        except (FetchFailed, ValueError) as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 (whatever it is: the thread has to go on)
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._succeeded(keys)

    def _fetched(self) -> KeySet:
        url = self._issuer.jwks_url or self._discovered()
        return parse_key_set(self._get.fetch(url), self._issuer.accepted_algorithms)

    def _discovered(self) -> str:
        """Where the issuer itself says that its keys are."""
        found = read_json_object(self._get.fetch(self._issuer.discovery_url))
        if found.get("issuer") != self._issuer.issuer:
            raise ValueError("the discovery document is of another issuer")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or not is_trustworthy_url(url):
            raise ValueError("the discovery document has no jwks_uri that can be trusted")
        if self._issuer.issuer.startswith("https:") and not url.startswith("https:"):
            raise ValueError("the discovery document of an https issuer has a jwks_uri of http")
        return url

    def _succeeded(self, keys: KeySet) -> None:
        if self.reads.failed and self.is_pending:
            _log.info("JWT issuer %s: its keys are here", self._issuer.issuer)
        with self._changed:
            self._schedule.succeeded(self._clock())
            self._publish(keys)
        self.reads.success()

    def _failed(self, reason: str) -> None:
        if self._closed:
            return
        with self._changed:
            self._schedule.failed(self._clock())
        self.reads.failure()
        kept = "its tokens are refused" if self.is_pending else "the keys that are known go on"
        _log.warning("JWT issuer %s: no keys: %s; %s", self._issuer.issuer, reason, kept)

    def _tell_dropped(self) -> None:
        # not under the lock: the event loop takes it too, and a log may be slow
        _log.error(
            "JWT issuer %s: no keys for %g s: its tokens are refused from now on",
            self._issuer.issuer,
            self._issuer.keep_keys_secs,
        )

    def _publish(self, keys: KeySet) -> None:
        if keys.fingerprint != self.keys.fingerprint:
            # in this order: whoever sees the new version sees the new keys
            self.keys = keys
            self.version += 1


class FileKeys:
    """Of a file, which is looked at again when requests come in. A broken one changes nothing."""

    def __init__(self, issuer: JwtIssuer, path: Path) -> None:
        self._issuer, self._path = issuer, path
        self._seen: tuple[int, ...] = ()
        self.keys = _NO_KEYS
        self.version = 0
        self.reads = Reads()

    @property
    def is_pending(self) -> bool:
        return not self.keys.keys

    def start(self) -> None:
        self._seen = self._look()
        try:
            self.keys = self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._path}: no keys: {_explained(error)}") from None

    def refresh(self) -> None:
        if (seen := self._look()) == self._seen:
            return
        self._seen = seen
        try:
            keys = self._read()
        except (OSError, ValueError) as error:
            self.reads.failure()
            _log.warning("%s: no keys: %s; those before go on", self._path, _explained(error))
            return
        if keys.fingerprint != self.keys.fingerprint:
            self.keys = keys
            self.version += 1
            _log.info("%s: read anew, %d keys", self._path, len(keys.keys))

    def ask(self) -> None:
        self.refresh()

    def close(self) -> None:
        pass

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self) -> KeySet:
        with self._path.open("rb") as file:
            text = file.read(self._issuer.max_jwks_bytes + 1)
        if len(text) > self._issuer.max_jwks_bytes:
            raise ValueError(f"over {self._issuer.max_jwks_bytes} bytes")
        keys = parse_key_set(text, self._issuer.accepted_algorithms)
        self.reads.success()
        return keys


class SecretKeys:
    """A secret that this server and the issuer share, as the store of secrets has it now."""

    def __init__(self, issuer: JwtIssuer, ref: SecretRef, read_secret: ReadSecret) -> None:
        self._issuer, self._ref, self._read_secret = issuer, ref, read_secret
        self.keys = _NO_KEYS
        self.version = 0
        self.reads = Reads()
        self._complaint = ""
        """What the log was told last: it is told once."""

    @property
    def is_pending(self) -> bool:
        return not self.keys.keys

    def start(self) -> None:
        try:
            self.keys = self._read()
        except ValueError as error:
            raise ConfigError(f"access.jwt: {self._ref}: {error}") from None
        self.reads.success()

    def refresh(self) -> None:
        try:
            keys = self._read()
        except (ConfigError, ValueError) as error:
            self._complain(str(error))
            return
        self._complaint = ""
        if keys.fingerprint != self.keys.fingerprint:
            self.reads.success()
            self.keys = keys
            self.version += 1

    def ask(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            self.reads.failure()
            _log.warning("access.jwt: %s: %s; the one before goes on", self._ref, reason)

    def _read(self) -> KeySet:
        secret = self._read_secret(self._ref)
        return secret_key_set(secret.reveal(), self._issuer.accepted_algorithms)


def _explained(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
