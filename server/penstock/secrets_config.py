"""`[secrets]`: where secrets are kept. A setting never holds a secret, only a reference that says where it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, Field, GetCoreSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from penstock.config_section import Section

SERVICE_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"

SecretKind = Literal["file", "env", "vault"]

EXPECTED: Final = "expected file:/path, env:NAME, or vault:mount/path#field"
BAD_REFERENCE: Final = "secret_reference"
"""The type of pydantic's error. What was given is not shown with it: it may be the secret itself."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VAULT_PATH: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_. -]+)+")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where one secret is kept. It is no secret: it may be shown, logged, and be a flag's value."""

    kind: SecretKind
    path: str
    """An absolute path, a variable's name, or mount and path in Vault."""
    field: str = ""
    """Of a secret in Vault."""

    @classmethod
    def parse(cls, text: str) -> SecretRef:
        """Of `file:/path`, `env:NAME`, `vault:mount/path#field`.

        Raises ValueError, which does not show the text: whoever writes the secret itself here would find it in a log.
        """
        kind, colon, rest = text.partition(":")
        if not colon or kind not in get_args(SecretKind):
            raise ValueError(f"no reference to a secret: {EXPECTED}")
        return _PARSERS[kind](rest)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" + (f"#{self.field}" if self.field else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema()
            ),
        )

    @classmethod
    def _validate(cls, value: object) -> SecretRef:
        if isinstance(value, SecretRef):
            return value
        if not isinstance(value, str):
            raise PydanticCustomError(BAD_REFERENCE, f"No reference to a secret: {EXPECTED}")
        try:
            return cls.parse(value)
        except ValueError as error:
            text = str(error)
            raise PydanticCustomError(BAD_REFERENCE, "{text}", {"text": text}) from None


def _file(rest: str) -> SecretRef:
    path = PurePosixPath(rest)
    if not path.is_absolute() or "\0" in rest:
        raise ValueError("file: expected an absolute path, as file:/run/secrets/name")
    return SecretRef("file", str(path))


def _env(rest: str) -> SecretRef:
    if not _NAME.fullmatch(rest):
        raise ValueError("env: expected the name of a variable, as env:REDIS_PASSWORD")
    return SecretRef("env", rest)


def _vault(rest: str) -> SecretRef:
    path, hash_sign, field = rest.partition("#")
    parts = path.split("/")
    if not _VAULT_PATH.fullmatch(path) or any(p in (".", "..") for p in parts):
        raise ValueError("vault: expected mount, path and field, as vault:secret/penstock#redis")
    if not hash_sign or not field or not field.isprintable():
        raise ValueError(f"vault:{path} names no field, expected vault:{path}#FIELD")
    return SecretRef("vault", path, field)


_PARSERS: Final = {"file": _file, "env": _env, "vault": _vault}


class SecretsSettings(Section):
    """Where secrets are read from, and how often they are looked at again."""

    strict_permissions: bool = False
    """Refuse files that others may read; otherwise a warning. Those that others may write are always refused."""
    watch_secs: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1
    """Seconds from one look at a watched file to the next."""
    vault_address: Annotated[str, StringConstraints(pattern=r"^(https?://[^@\s]+)?$")] = ""
    """Where Vault is, as https://vault:8200."""
    vault_namespace: str = ""
    """Vault's namespace."""
    vault_ca_file: Path | None = None
    """Certificates by which Vault's own is checked; none: those of the system."""
    vault_auth: Literal["token", "approle", "kubernetes"] = "token"
    """How the server makes itself known to Vault."""
    vault_auth_mount: str = ""
    """Where that login is mounted in Vault; none: under its own name."""
    vault_token: SecretRef | None = None
    """Where Vault's token is, for auth token: file:/path or env:NAME."""
    vault_role_id: SecretRef | None = None
    """Where the role's id is, for auth approle: file:/path or env:NAME."""
    vault_secret_id: SecretRef | None = None
    """Where the secret id is, for auth approle: file:/path or env:NAME."""
    vault_role: str = ""
    """Name of the role in Vault, for auth kubernetes."""
    vault_service_token: SecretRef = SecretRef("file", SERVICE_TOKEN)
    """Where the service account's token is, for auth kubernetes: file:/path or env:NAME."""
    vault_kv_version: Literal["auto", "1", "2"] = "auto"
    """Version of the KV engine; auto asks Vault, which then also says where the mount's name ends."""
    vault_refresh_secs: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300
    """Seconds until a secret is asked for again; earlier where Vault's lease or the token's own says so."""
    vault_timeout_secs: Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)] = 5
    """Seconds that Vault may take to answer."""

    @model_validator(mode="after")
    def _check_vault(self) -> Self:
        needed = {
            "token": ("vault_token",),
            "approle": ("vault_role_id", "vault_secret_id"),
            "kubernetes": ("vault_role", "vault_service_token"),
        }[self.vault_auth]
        for name in ("vault_token", "vault_role_id", "vault_secret_id", "vault_service_token"):
            reference = getattr(self, name)
            if reference is not None and reference.kind == "vault":
                raise ValueError(f"{name}: what opens Vault can't be kept in Vault itself")
        missing = [name for name in needed if not getattr(self, name)]
        if self.vault_address and missing:
            raise ValueError(f"vault_auth {self.vault_auth} needs {' and '.join(missing)}")
        return self


def references_of(settings: object, name: str = "") -> Iterator[tuple[str, SecretRef]]:
    """All references in settings, or tables of them, in order, with where each stands: `access.jwt.0.secret`."""
    if isinstance(settings, SecretRef):
        yield name, settings
        return
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(settings, BaseModel):
        parts = ((field, getattr(settings, field)) for field in type(settings).model_fields)
    elif isinstance(settings, Mapping):
        parts = settings.items()
    elif isinstance(settings, tuple):
        parts = enumerate(settings)
    for part, value in parts:
        yield from references_of(value, f"{name}.{part}" if name else str(part))


def variables_of(settings: object) -> frozenset[str]:
    """The environment's variables that settings, or tables of them, name as places of secrets."""
    return frozenset(ref.path for _, ref in references_of(settings) if ref.kind == "env")
