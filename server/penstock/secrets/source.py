"""Where all parts of the server get their secrets, and how they hear of new ones."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.secrets.stores import EnvironmentStore, FileStore, Store
from penstock.secrets.vault import VaultStore
from penstock.secrets_config import SecretRef, SecretsSettings

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
"""Until a place that failed is tried again: a file always soon, Vault later with each miss, since each may log in."""

OnChange = Callable[[Secret], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecretHealth:
    """How one secret's place does, for metrics."""

    ref: SecretRef
    failing: bool
    """The last look failed: what is given out is older than it should be."""
    failures: int
    age_s: float
    """Since it was last seen."""


class Watch:
    """One who wants to hear of a secret's changes. Close it, or the source, at the end."""

    def __init__(
        self, secret: Secret, callback: OnChange | None, close: Callable[[], None]
    ) -> None:
        self._callback: Final = callback
        self._close: Final = close
        self.secret = secret
        """The value now. What was told last is what this holds."""

    def close(self) -> None:
        """No call comes after this but one that is under way."""
        self._close()

    def tell(self, secret: Secret) -> None:
        """Of the source: pass on a value, if it is another one."""
        if secret == self.secret:
            return
        self.secret = secret
        if self._callback is not None:
            self._callback(secret)


@dataclass(slots=True, eq=False)
class _Held:
    """One secret's last good value."""

    secret: Secret
    seen_at: float
    due_at: float
    failures: int = 0
    misses: int = 0
    """Looks that failed since the last good one."""
    watches: list[Watch] = field(default_factory=list)


class SecretSource:
    """Reads secrets, keeps their last good values, and follows those that are watched or in Vault.

    Its methods may be called from any thread. `close` it at the end.
    """

    def __init__(
        self,
        settings: SecretsSettings | None = None,
        *,
        stores: Mapping[str, Store] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stores` and `clock` are for tests. Nothing is read yet."""
        settings = settings or SecretsSettings()
        self._stores: Final = dict(stores or _stores(settings))
        self._clock: Final = clock
        self._held: Final[dict[SecretRef, _Held]] = {}
        self._lock: Final = threading.Lock()
        self._wake: Final = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._more = False
        """Something is to be followed that the thread does not know of."""
        self._closed = False

    def get(self, ref: SecretRef) -> Secret:
        """The secret as it is now. If its place is away and it was read before, the last good value.

        The first call for a secret in Vault waits for Vault: make it at the start. Later ones, and those for files and
        variables, are quick. Raises ConfigError, that names the reference, when there is no value.
        """
        held = self._held.get(ref)
        if held is None:
            held = self._first(ref)
            if ref.kind == "vault":
                self._follow()
        elif ref.kind == "file":
            self._look_at(ref, held)
        return held.secret

    def watch(self, ref: SecretRef, callback: OnChange | None = None) -> Watch:
        """Read it, and hear of each change: `callback(secret)` is called in the source's own thread.

        The watch's `secret` is what it is now, and later on: with it alone no change is missed between two calls.
        Raises ConfigError as `get` does.
        """
        secret = self.get(ref)
        watch = Watch(secret, callback, lambda: self._forget(ref, watch))
        with self._lock:
            self._held[ref].watches.append(watch)
        if ref.kind != "env":
            self._follow()
        return watch

    def health(self) -> list[SecretHealth]:
        """Of all secrets that were read."""
        now = self._clock()
        with self._lock:
            return [
                SecretHealth(ref, held.misses > 0, held.failures, now - held.seen_at)
                for ref, held in self._held.items()
            ]

    def look(self) -> float:
        """Look at all that is followed and due, and tell its watches. Returns the seconds until the next look is due.

        The source's own thread calls this; tests may.
        """
        for ref, held in self._followed():
            if held.due_at <= self._clock():
                self._look_at(ref, held)
            for watch in tuple(held.watches):
                _tell(ref, watch, held.secret)
        due_at = min((held.due_at for _, held in self._followed()), default=math.inf)
        return max(due_at - self._clock(), 0)

    def close(self) -> None:
        """End the thread, let go of connections. No callback is called any more."""
        with self._lock:
            self._closed = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for store in self._stores.values():
            store.close()

    def _first(self, ref: SecretRef) -> _Held:
        reading = self._stores[ref.kind].read(ref)
        now = self._clock()
        with self._lock:
            # another thread may have been first: its watches stay
            return self._held.setdefault(ref, _Held(reading.secret, now, now + reading.fresh_s))

    def _look_at(self, ref: SecretRef, held: _Held) -> None:
        try:
            reading = self._stores[ref.kind].read(ref)
        except ConfigError as error:
            self._missed(ref, held, error)
            return
        now = self._clock()
        with self._lock:
            again = held.misses > 0
            changed = held.secret != reading.secret
            held.secret = reading.secret
            held.seen_at, held.due_at = now, now + reading.fresh_s
            held.misses = 0
        if again:
            _log.info("%s can be read again", ref)
        if changed:
            _log.info("%s has changed", ref)

    def _missed(self, ref: SecretRef, held: _Held, error: ConfigError) -> None:
        with self._lock:
            delay_s = FIRST_RETRY_S * 2 ** min(held.misses, 10) if ref.kind == "vault" else 0
            held.due_at = self._clock() + min(max(delay_s, FIRST_RETRY_S), LONGEST_RETRY_S)
            held.failures += 1
            held.misses += 1
            first = held.misses == 1
        if first:
            _log.warning("%s. The value that was read before goes on.", error)

    def _followed(self) -> list[tuple[SecretRef, _Held]]:
        with self._lock:
            return [
                (ref, held)
                for ref, held in self._held.items()
                if ref.kind == "vault" or (ref.kind == "file" and held.watches)
            ]

    def _forget(self, ref: SecretRef, watch: Watch) -> None:
        with self._lock:
            held = self._held.get(ref)
            if held is not None and watch in held.watches:
                held.watches.remove(watch)

    def _follow(self) -> None:
        """Have a thread, and have it know that there is more to follow."""
        with self._lock:
            self._more = True
            self._wake.notify_all()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="secrets", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                self._more = False
            wait_s = self.look()
            with self._lock:
                self._wake.wait_for(
                    lambda: self._more or self._closed, None if math.isinf(wait_s) else wait_s
                )


def _tell(ref: SecretRef, watch: Watch, secret: Secret) -> None:
    try:
        watch.tell(secret)
    except Exception as error:  # noqa: BLE001 - whoever watches next has to hear of it all the same
        # neither its text nor its traceback: they may show the secret
        _log.error("%s has changed, but what uses it failed: %s", ref, type(error).__name__)


def _stores(settings: SecretsSettings) -> dict[str, Store]:
    return {
        "file": FileStore(strict=settings.strict_permissions, watch_s=settings.watch_secs),
        "env": EnvironmentStore(),
        "vault": VaultStore(settings),
    }
