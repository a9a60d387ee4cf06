"""`[quotas]`: where tenants' limits are counted, and how their use is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from penstock.config_section import Section
from penstock.secrets_config import SecretRef

SCHEMES: Final = ("redis", "rediss", "unix")
SECRET_IN_URL: Final = "secret_in_url"
"""The type of pydantic's error. What was given is not shown with it."""


class QuotaSettings(Section):
    """How tenants' limits are kept. The limits themselves are the tenants': `penstock tenants quota`."""

    usage_flush_secs: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 5
    """Seconds from one time that tenants' use is written to their database to the next."""
    usage_top_k: Annotated[int, Field(ge=0, le=1000)] = 20
    """Tenants that have metrics of their own, those with the most requests; all others are one, `other`."""
    redis_url: str = ""
    """Redis by which servers share all limits, as redis://host:6379/0, rediss:// (TLS) or unix:///path; none: each
    server counts by itself."""
    redis_username: str = ""
    """User of Redis; none: its default one."""
    redis_password: SecretRef | None = None
    """Where the password for Redis is: file:/path, env:NAME or vault:mount/path#field."""
    redis_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:{}-]{1,64}$")] = (
        "penstock"
    )
    """What the names of all keys in Redis begin with: servers of the same prefix share."""
    redis_ca_file: Path | None = None
    """Certificates by which Redis's own is checked; none: those of the system."""
    redis_cert_file: Path | None = None
    """Certificate that this server shows to Redis."""
    redis_key_file: Path | None = None
    """Private key of the certificate that is shown to Redis."""
    redis_timeout_secs: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.25
    """Seconds that Redis may take to answer; then it counts as away. No request waits for it."""
    redis_chunk_percent: Annotated[float, Field(gt=0, le=25, allow_inf_nan=False)] = 10
    """Percent of a rate's burst that a server takes from Redis at once; one request, row or byte at least."""
    redis_lease_secs: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 10
    """After so many seconds without a word a server counts as ended, and its requests in flight as answered."""
    when_redis_is_away: Literal["local", "refuse", "allow"] = "local"
    """local: each server goes by the limits alone, as if it were the only one. refuse: what has a limit is refused.
    allow: all limits are off."""

    @field_validator("redis_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"expected redis://host:6379/0: {error}") from None
        if parts.password is not None or parts.username is not None:
            # of a kind that is not shown with what was given
            raise PydanticCustomError(
                SECRET_IN_URL,
                "the URL holds a name or a password: expected them as redis_username and redis_password",
            )
        if parts.scheme not in SCHEMES:
            raise ValueError("expected redis://host:6379/0, rediss://host:6379/0 or unix:///path")
        if parts.query or parts.fragment:
            raise ValueError("expected no ? and no # in the URL")
        if not (parts.path if parts.scheme == "unix" else parts.hostname):
            raise ValueError("the URL names no host, or no path")
        if parts.scheme != "unix" and parts.path.strip("/") and not parts.path[1:].isdecimal():
            raise ValueError("expected the database's number after the host, as redis://host/0")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if bool(self.redis_cert_file) != bool(self.redis_key_file):
            raise ValueError("redis_cert_file and redis_key_file need each other")
        with_tls = self.redis_url.startswith("rediss:")
        for name in ("redis_ca_file", "redis_cert_file"):
            if getattr(self, name) is not None and not with_tls:
                raise ValueError(f"{name} needs a redis_url of rediss://")
        return self
