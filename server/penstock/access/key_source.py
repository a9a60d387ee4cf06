"""What an issuer's keys come from. What there is can always be had at once."""

from __future__ import annotations

import time
from typing import Final, Protocol

import msgspec

from penstock.access.jwk_set import KeySet
from penstock.jwt_config import JwtIssuer

NO_KEYS: Final = KeySet()


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


def setting_of(issuer: JwtIssuer, name: str) -> str:
    """As errors call it: an issuer has no other name than its own."""
    return f"access.jwt (issuer {issuer.issuer!r}) {name}"


def explained(error: Exception) -> str:
    """Why keys can't be read, in words that name no path."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
