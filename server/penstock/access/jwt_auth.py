"""JSON Web Tokens of OpenID Connect issuers → principals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import jwt
import msgspec
from jwt.algorithms import Algorithm

from penstock.access.credentials import Credentials
from penstock.access.jwks import key_source
from penstock.access.jwt_claims import ClaimRules, Identity
from penstock.access.jwt_text import TokenRefused, UnverifiedToken, is_token, read_token
from penstock.access.key_source import KeySource
from penstock.access.local_keys import ReadSecret
from penstock.access.principal import Principal
from penstock.errors import ConfigError, Unauthenticated, Unavailable
from penstock.jwt_config import ASYMMETRIC, SYMMETRIC, JwtIssuer
from penstock.telemetry.jwt_metrics import IssuerState

_log = logging.getLogger(__name__)

REFUSED: Final = "the token does not hold"
"""All that its sender is told: the reason would help who makes tokens up."""
NOT_YET: Final = "tokens can't be checked at the moment"
RETRY_S: Final = 1.0
"""When keys that are being fetched should be here."""
BEARER: Final = b"bearer "

_BY_NAME: Final[Mapping[str, Algorithm]] = {
    name: jwt.get_algorithm_by_name(name) for name in (*ASYMMETRIC, *SYMMETRIC)
}


class KnownIssuer(msgspec.Struct, frozen=True):
    """One issuer: what its tokens must be like, and its keys."""

    settings: JwtIssuer
    rules: ClaimRules
    source: KeySource


class JwtAuthenticator:
    """Knows signed tokens. Which issuer's a token is, it says itself; then that issuer's keys must have signed it."""

    def __init__(
        self,
        issuers: Sequence[JwtIssuer],
        source_of: Callable[[JwtIssuer], KeySource],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: Unix seconds."""
        self._clock = clock
        self._issuers = {
            issuer.issuer: KnownIssuer(issuer, ClaimRules(issuer), source_of(issuer))
            for issuer in issuers
        }
        self._max_bytes = max((issuer.max_token_bytes for issuer in issuers), default=0)

    @classmethod
    def of(cls, issuers: Sequence[JwtIssuer], read_secret: ReadSecret) -> JwtAuthenticator:
        """With the sources of keys that the settings name."""
        return cls(issuers, lambda issuer: key_source(issuer, read_secret))

    def start(self) -> None:
        """Begin to get keys; those of files are here at once. Raises ConfigError for the first of those that can't be
        had; they are when they are mended."""
        problems = []
        for issuer in self._issuers.values():
            try:
                issuer.source.start()
            except ConfigError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def close(self) -> None:
        """End all fetches. May block for a moment."""
        for issuer in self._issuers.values():
            issuer.source.close()

    @property
    def generation(self) -> int:
        """As Authenticator says."""
        return sum(issuer.source.version for issuer in self._issuers.values())

    def states(self) -> Iterator[IssuerState]:
        """Of each issuer, for metrics."""
        for name, issuer in self._issuers.items():
            reads = issuer.source.reads
            yield IssuerState(
                issuer=name,
                keys=len(issuer.source.keys.keys),
                read_at=reads.succeeded_at,
                succeeded=reads.succeeded,
                failed=reads.failed,
            )

    def refresh(self, now: float) -> None:
        """As Authenticator says."""
        for issuer in self._issuers.values():
            issuer.source.refresh()

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """As Authenticator says. Raises Unavailable while nobody knows the issuer's keys."""
        text = _bearer(credentials.authorization)
        if text is None or not is_token(text):
            return None
        try:
            return self._principal(text)
        except TokenRefused as reason:
            _log.debug("a token was refused: %s", reason)
            raise Unauthenticated(REFUSED, f"token: {reason}") from reason

    def _principal(self, text: bytes) -> Principal:
        token = read_token(text, self._max_bytes)
        issuer = self._issuer_of(token)
        if len(text) > issuer.settings.max_token_bytes:
            raise TokenRefused(f"{len(text)} bytes, over the issuer's limit")
        self._verify(token, issuer)
        return _principal_of(issuer, issuer.rules.identity(token.claims, self._clock()))

    def _issuer_of(self, token: UnverifiedToken) -> KnownIssuer:
        name = token.claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenRefused("iss is none that is known")
        if token.algorithm not in issuer.settings.accepted_algorithms:
            raise TokenRefused("alg is none of the issuer's")
        issuer.rules.check_type(token.header)
        return issuer

    def _verify(self, token: UnverifiedToken, issuer: KnownIssuer) -> None:
        """Raises TokenRefused unless one of the issuer's keys has signed it."""
        source = issuer.source
        if source.is_pending:
            source.ask()
            raise Unavailable(NOT_YET, RETRY_S)
        keys = source.keys
        key_id = token.key_id
        if key_id is not None and keys.has_ids and not keys.knows(key_id):
            # perhaps a new one: whoever tries again will find it. Nobody is kept waiting: most such tokens are made up
            source.ask()
            raise TokenRefused("kid is none of the issuer's")
        for key in keys.fitting(key_id, token.algorithm):
            # by one algorithm, that the issuer and the key are for: no other is tried, whatever the token says
            if _is_signature(_BY_NAME[token.algorithm], token, key.key):
                return
        raise TokenRefused("no key of the issuer has signed it")


def _bearer(authorization: bytes) -> bytes | None:
    """What comes after `Bearer`, None if something else is said."""
    if authorization[: len(BEARER)].lower() != BEARER:
        return None
    return authorization[len(BEARER) :].strip(b" ")


def _is_signature(algorithm: Algorithm, token: UnverifiedToken, key: object) -> bool:
    try:
        # not `jwt.decode`, which would read the token once more, and take what was refused already
        return algorithm.verify(token.signed, key, token.signature)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        _log.debug("a token's signature is none: %s", type(error).__name__)
        return False


def _principal_of(issuer: KnownIssuer, identity: Identity) -> Principal:
    return Principal(
        id=f"jwt:{issuer.settings.issuer}#{identity.subject}",
        tenant=identity.tenant,
        roles=identity.roles,
        kind="jwt",
        models=issuer.settings.models,
        expires_at=identity.expires_at,
    )
