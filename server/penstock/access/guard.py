"""At the door: whose a call is. What was found out is remembered until something changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from penstock.access.authenticator import Authenticator
from penstock.access.credentials import NOTHING, Credentials
from penstock.access.permissions import Permissions
from penstock.access.principal import Principal
from penstock.access.session import OnRefusal, Quota, Session, UnknownSession
from penstock.access_config import AccessSettings
from penstock.errors import Unauthenticated, Unavailable

MAX_SESSIONS: Final = 4096
REFRESH_NS: Final = 200_000_000
"""How old what is known of tenants and keys may be: a change is effective within that, and an idle server looks for
none."""

NO_CREDENTIAL: Final = (
    "no credential: expected an API key or a JWT as 'authorization: Bearer …', an API key as 'x-api-key: …',"
    " or a client certificate"
)
NOT_ANY_MORE: Final = "the credential is not known, or does not hold any more"
"""Of all that could be told from each other only by who has no business to."""


class Guard:
    """One a gateway."""

    def __init__(
        self,
        settings: AccessSettings,
        authenticators: Sequence[Authenticator],
        certificates: Authenticator,
        quota_of: Callable[[str], Quota | None] = lambda tenant: None,
        on_refusal: OnRefusal = lambda principal, error, verb, model: None,
        reach_of: Callable[[str], tuple[str, ...] | None] = lambda tenant: ("*",),
    ) -> None:
        """`authenticators`: of what comes in headers. `reach_of`: patterns of the models that a tenant may reach; None:
        it is disabled. An authenticator's generation tells when that changes."""
        self._authenticators = authenticators
        self._certificates = certificates
        self._roles = settings.all_roles
        self._reach_of = reach_of
        self._quota_of = quota_of
        self.on_refusal: Final = on_refusal
        self._anonymous: Principal | None = None
        if settings.anonymous_roles:
            self._anonymous = Principal(
                "anonymous", settings.anonymous_tenant, settings.anonymous_roles, "anonymous"
            )
        self._sessions: dict[Credentials, Session] = {}
        self._generations: tuple[int, ...] = ()
        self._fresh_until_ns = 0

    def session(self, credentials: Credentials) -> Session:
        """Of the call that shows these. One that was seen before costs one look-up.

        Raises Unauthenticated, which `on_refusal` is to be told of by who knows what was asked for, and Unavailable
        while nobody can tell.
        """
        if time.monotonic_ns() >= self._fresh_until_ns:
            self._refresh()
        session = self._sessions.get(credentials)
        return self._open(credentials) if session is None else session

    def session_or_unknown(self, credentials: Credentials) -> Session | UnknownSession:
        """As `session`, for who does not know yet whether one is needed."""
        try:
            return self.session(credentials)
        except (Unauthenticated, Unavailable) as error:
            return UnknownSession(error, self.on_refusal)

    def _refresh(self) -> None:
        """Forget all sessions when something changed, and those that have expired."""
        now = time.monotonic()
        for each in self._authenticators:
            each.refresh(now)
        self._certificates.refresh(now)
        generations = (
            *(each.generation for each in self._authenticators),
            self._certificates.generation,
        )
        if generations != self._generations:
            self._sessions.clear()
            self._generations = generations
        wall = time.time()
        expired = [key for key, session in self._sessions.items() if session.expires_at <= wall]
        for key in expired:
            del self._sessions[key]
        self._fresh_until_ns = time.monotonic_ns() + REFRESH_NS

    def _open(self, credentials: Credentials) -> Session:
        principal = self._principal(credentials)
        reach = self._reach_of(principal.tenant)
        if reach is None:
            # the tenant's, whatever tells that it is: a key, a token, a certificate
            raise Unauthenticated(NOT_ANY_MORE)
        session = Session(
            principal,
            Permissions(principal, self._roles, reach),
            self._quota_of(principal.tenant),
            self.on_refusal,
        )
        if len(self._sessions) >= MAX_SESSIONS:
            self._sessions.clear()
        self._sessions[credentials] = session
        return session

    def _principal(self, credentials: Credentials) -> Principal:
        by_certificate = self._certificates.authenticate(credentials)
        by_header = self._by_header(credentials)
        if by_header is None:
            principal = by_certificate or self._anonymous
            if principal is None:
                raise Unauthenticated(NO_CREDENTIAL)
            return principal
        if by_certificate is not None and by_certificate.tenant != by_header.tenant:
            # a key that was stolen is worth nothing to somebody else's client
            raise Unauthenticated("the credential is not of the tenant that the certificate names")
        return by_header

    def _by_header(self, credentials: Credentials) -> Principal | None:
        """Who the headers say it is; None: they say nothing of it."""
        shown = Credentials(credentials.authorization, credentials.api_key)
        if shown == NOTHING:
            return None
        if shown.authorization and shown.api_key:
            raise Unauthenticated("two credentials: expected one of authorization and x-api-key")
        for each in self._authenticators:
            principal = each.authenticate(shown)
            if principal is not None:
                return principal
        raise Unauthenticated("the credential is of no kind that is known here")
