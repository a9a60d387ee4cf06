"""The keys of an issuer that its server has, fetched by a thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from penstock.access.bounded_get import BoundedGet, FetchFailed
from penstock.access.fetch_schedule import FetchSchedule
from penstock.access.jwk_set import KeySet, parse_key_set
from penstock.access.jwt_text import read_json_object
from penstock.access.key_source import NO_KEYS, Reads, explained, setting_of
from penstock.errors import ConfigError
from penstock.jwt_config import JwtIssuer, is_trustworthy_url

_log = logging.getLogger(__name__)

JOIN_S: Final = 2.0
"""How long `close` waits for a fetch that looks up a name, which can't be broken off."""


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
        self.keys = NO_KEYS
        self.version = 0
        self.reads = Reads()

    @property
    def is_pending(self) -> bool:
        return not self.keys.keys

    def start(self) -> None:
        try:
            self._get.check()
        except (OSError, ValueError) as error:
            where = f"{setting_of(self._issuer, 'ca_file')}: {self._issuer.ca_file}"
            raise ConfigError(
                f"{where}: can't be read as certificates: {explained(error)}"
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
                    self._publish(NO_KEYS)
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
