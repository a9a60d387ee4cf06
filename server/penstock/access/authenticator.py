"""What tells from credentials who somebody is."""

from __future__ import annotations

from typing import Protocol

from penstock.access.credentials import Credentials
from penstock.access.principal import Principal


class Authenticator(Protocol):
    """Knows one kind of credentials. None of its methods block; what they need is here already."""

    @property
    def generation(self) -> int:
        """Another number whenever an earlier answer may not hold any more."""
        ...

    def refresh(self, now: float) -> None:
        """Look for changes. Called when a request is here, but not more often than five times a second; `now`: seconds
        of the monotonic clock."""
        ...

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """Who that is; None: there is no credential of this kind. Called once a distinct credential and generation.

        Raises Unauthenticated when there is one that does not hold, with a text that helps only its owner; Unavailable
        when that can't be told yet.
        """
        ...
