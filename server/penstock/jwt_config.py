"""`[[access.jwt]]`: an issuer of tokens (OpenID Connect), what they must be like, and whose requests they make."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ByteSize, Field, StringConstraints, model_validator

from penstock.config_section import Name, Pattern, Section
from penstock.secrets_config import SecretRef

AsymmetricAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
SymmetricAlgorithm = Literal["HS256", "HS384", "HS512"]
Algorithm = Literal[AsymmetricAlgorithm, SymmetricAlgorithm]
ASYMMETRIC: Final[tuple[AsymmetricAlgorithm, ...]] = get_args(AsymmetricAlgorithm)
SYMMETRIC: Final[tuple[SymmetricAlgorithm, ...]] = get_args(SymmetricAlgorithm)

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"


def _texts(value: object) -> object:
    """One text stands for a list of it."""
    return (value,) if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
ClaimPath = Annotated[
    str, StringConstraints(max_length=1024, pattern=r"^$|^([^.\\]|\\.)+(\.([^.\\]|\\.)+)*$")
]
"""Names of nested claims, such as `realm_access.roles`; `\\.` is a dot within a name."""
RoleNames = Annotated[tuple[Name, ...], BeforeValidator(_texts)]
ClaimValue = bool | int | str | tuple[str, ...]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class JwtIssuer(Section):
    """One issuer whose tokens are accepted."""

    issuer: Text
    """The tokens' `iss`, letter by letter."""
    audience: Annotated[tuple[Text, ...], Field(min_length=1)]
    """One of these must be the tokens' `aud`, or one of it."""

    jwks_url: str = ""
    """Where the issuer's public keys are; without it and `jwks_file` the issuer's discovery document says where."""
    jwks_file: Path | None = None
    """File of the issuer's public keys, read again when it changes."""
    secret: SecretRef | None = None
    """Where the secret of HS256, HS384 or HS512 is: file:/path, env:NAME or vault:mount/path#field."""
    algorithms: tuple[Algorithm, ...] = ()
    """Signatures that are accepted; none: all asymmetric ones, or HS256 with `secret`."""
    types: tuple[Text, ...] = ("JWT", "at+jwt")
    """What the tokens' `typ` may be; one without passes as JWT."""

    tenant: Name | None = None
    """The tenant of all tokens of this issuer, in place of `tenant_claim`."""
    tenant_claim: ClaimPath = "tenant"
    """The claim that names the tenant; `a.b` is a claim within a claim, and `\\.` a dot in a claim's name."""
    tenants: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    """Patterns of the tenants that this issuer may speak for."""
    subject_claim: Annotated[ClaimPath, Field(min_length=1)] = "sub"
    """The claim that names the principal within the issuer."""
    roles_claim: ClaimPath = ""
    """The claim whose text, or list of texts, `role_map` turns into roles."""
    role_map: Mapping[Text, RoleNames] = Field(default_factory=dict)
    """A value of `roles_claim` → the roles that it stands for. Others give none."""
    default_roles: tuple[Name, ...] = ()
    """The roles of tokens that `role_map` gives none."""
    models: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    """Patterns of the models that tokens of this issuer reach at most."""
    required_claims: Mapping[ClaimPath, ClaimValue] = Field(default_factory=dict)
    """A claim (a.b) → the value that it must have or hold, one of a list's; "*": it must be there."""

    leeway_secs: Annotated[float, Field(ge=0, le=300)] = 30
    """How far the issuer's clock and this one's may differ."""
    max_lifetime_secs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 86_400
    """Tokens that are made for longer are refused; 0: any."""
    max_age_secs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Tokens that were issued longer ago are refused, and all without `iat`; 0: any age."""
    max_token_bytes: Annotated[ByteSize, Field(ge=128, le=65_536)] = ByteSize(16_384)
    """Longer tokens are refused unread."""

    refresh_secs: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300
    """Seconds from one fetch of the keys to the next."""
    refresh_min_secs: Positive = 10
    """Least seconds between two fetches, whatever key ids tokens name."""
    keep_keys_secs: Positive = 86_400
    """How long the last keys go on when the issuer can't be reached."""
    fetch_timeout_secs: Annotated[float, Field(gt=0, le=60)] = 5
    """Seconds that one fetch may take, all told."""
    max_jwks_bytes: Annotated[ByteSize, Field(ge=1024, le=16 << 20)] = ByteSize(256 << 10)
    """Longest answer of the issuer, or file of keys."""
    ca_file: Path | None = None
    """Certificates (PEM) of who may vouch for the issuer's server; none: the system's."""

    @model_validator(mode="after")
    def _check_together(self) -> JwtIssuer:
        sources = [name for name in ("jwks_url", "jwks_file", "secret") if getattr(self, name)]
        if len(sources) > 1:
            raise ValueError(f"{sources[0]} and {sources[1]}: expected only one of them")
        self._check_algorithms()
        if not sources:
            _check_url("issuer", self.issuer)
        if self.jwks_url:
            _check_url("jwks_url", self.jwks_url)
        if not self.tenant and not self.tenant_claim:
            raise ValueError("tenant_claim is empty: expected a claim, or a tenant")
        if bool(self.roles_claim) != bool(self.role_map):
            raise ValueError("roles_claim and role_map need each other")
        if not self.role_map and not self.default_roles:
            raise ValueError("default_roles or role_map is needed: tokens may do nothing without")
        if self.refresh_min_secs > self.refresh_secs:
            raise ValueError("refresh_min_secs is more than refresh_secs")
        return self

    def _check_algorithms(self) -> None:
        fitting = SYMMETRIC if self.secret else ASYMMETRIC
        for name in self.algorithms:
            if name not in fitting:
                wanted = "needs a secret" if name in SYMMETRIC else "has no use for a secret"
                raise ValueError(f"algorithms: {name} {wanted}, expected some of {list(fitting)}")

    @property
    def accepted_algorithms(self) -> frozenset[str]:
        """`algorithms`, resolved."""
        default = ("HS256",) if self.secret else ASYMMETRIC
        return frozenset(self.algorithms or default)

    @property
    def all_roles(self) -> tuple[str, ...]:
        """All that a token of this issuer can come to."""
        mapped = (role for roles in self.role_map.values() for role in roles)
        return tuple(dict.fromkeys((*self.default_roles, *mapped)))

    @property
    def discovery_url(self) -> str:
        """Where OpenID Connect Discovery puts the issuer's own description."""
        return self.issuer.rstrip("/") + DISCOVERY_PATH


def claim_names(path: str) -> tuple[str, ...]:
    """A claim's path → the names along it."""
    return tuple(re.sub(r"\\(.)", r"\1", name) for name in re.findall(r"(?:[^.\\]|\\.)+", path))


def is_trustworthy_url(url: str) -> bool:
    """https, or http that doesn't leave this machine; without user, password or fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable():
        return False
    if " " in url or "@" in parts.netloc or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(name: str, url: str) -> None:
    if not is_trustworthy_url(url):
        raise ValueError(f"{name}: expected an https:// address, or http:// of this machine")
