"""`[access]`: whether callers have to say who they are, and what they may do then."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from penstock.config_section import Name, Pattern, Section, state_folder
from penstock.jwt_config import JwtIssuer
from penstock.verbs import Verb

OWN: Final = "@own"
"""In place of a tenant's name: the caller's own."""


class Role(Section):
    """`[access.roles.NAME]`: what those may do who have it."""

    verbs: tuple[Verb, ...]
    """What they may do."""
    models: tuple[Pattern, ...] = ("*",)
    """With which models."""
    tenants: tuple[Pattern, ...] = (OWN,)
    """Of which tenants they may read or manage what is theirs; `@own`: the caller's own."""


BUILT_IN: Final[Mapping[str, Role]] = {
    "user": Role(verbs=(Verb.INFER, Verb.READ_METADATA)),
    "viewer": Role(verbs=(Verb.READ_METADATA, Verb.READ_STATISTICS)),
    "monitor": Role(verbs=(Verb.METRICS, Verb.READ_STATISTICS, Verb.READ_METADATA), tenants=("*",)),
    "operator": Role(
        verbs=(
            Verb.LOAD,
            Verb.ROLLOUT,
            Verb.READ_METADATA,
            Verb.READ_STATISTICS,
            Verb.METRICS,
            Verb.CONFIGURE,
        )
    ),
    "tenant-admin": Role(verbs=(Verb.MANAGE_TENANTS,)),
    "auditor": Role(verbs=(Verb.READ_AUDIT,), tenants=("*",)),
    "admin": Role(verbs=tuple(Verb), tenants=("*",)),
}
"""Roles that every server has."""


class CertificateIdentity(Section):
    """`[[access.certificates]]`: who a client with such a certificate is. The first that fits holds."""

    uri: Pattern | None = None
    """A URI among its alternative names, such as `spiffe://example.org/team-a/*`."""
    dns: Pattern | None = None
    """A DNS name among them."""
    subject: Pattern | None = None
    """Its subject, as RFC 2253 writes it, such as `CN=loader,O=Example`."""
    tenant: Name
    """Whose requests they are."""
    roles: tuple[Name, ...] = ("user",)
    """What they may do."""

    @model_validator(mode="after")
    def _check_one(self) -> CertificateIdentity:
        given = [name for name in ("uri", "dns", "subject") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("expected one of uri, dns and subject")
        return self


class AccessSettings(Section):
    """Who may do what."""

    mode: Literal["off", "required"] = "off"
    """required: every request needs a credential: an API key, a JWT, or a client certificate. off: all may do all."""
    tenants_file: Path | None = None
    """SQLite database of tenants, API keys and quotas, which `penstock tenants` manages; none:
    `penstock/tenants.db` in $XDG_STATE_HOME, which is ~/.local/state unless it says otherwise."""
    anonymous_roles: tuple[Name, ...] = ()
    """Roles of those who show no credential at all; none: they may only ask whether the server is alive. Repeatable;
    `,` in the environment."""
    anonymous_tenant: Name = "anonymous"
    """The tenant of requests that show no credential at all."""
    roles: Mapping[Name, Role] = Field(default_factory=dict)
    """Further roles, by name."""
    certificates: tuple[CertificateIdentity, ...] = ()
    """Who clients with certificates are."""
    jwt: tuple[JwtIssuer, ...] = ()
    """Issuers of tokens (OpenID Connect) that are accepted."""

    @model_validator(mode="after")
    def _check_roles(self) -> AccessSettings:
        for name in self.roles:
            if name in BUILT_IN:
                raise ValueError(f"roles.{name}: there is a built-in role of this name")
        for at, issuer in enumerate(self.jwt):
            if issuer.issuer in (other.issuer for other in self.jwt[:at]):
                raise ValueError(f"jwt.{at}.issuer: there is one of this name before")
        known = self.all_roles
        used = {
            "anonymous_roles": self.anonymous_roles,
            **{f"certificates.{n}.roles": c.roles for n, c in enumerate(self.certificates)},
            **{f"jwt.{n}": issuer.all_roles for n, issuer in enumerate(self.jwt)},
        }
        for where, names in used.items():
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"{where}: there is no role '{name}', expected one of {', '.join(known)}"
                    )
        return self

    @property
    def tenants_path(self) -> Path:
        """`tenants_file`, resolved."""
        return self.tenants_file or state_folder() / "tenants.db"

    @property
    def all_roles(self) -> Mapping[str, Role]:
        """Built-in and own ones."""
        return {**BUILT_IN, **self.roles}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern fits the name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
