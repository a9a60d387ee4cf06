"""`[artifacts]`: whose models are served, how they are kept, and which formats are not loaded at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from penstock.access_config import matches
from penstock.config_section import Pattern, Section, state_folder
from penstock.secrets_config import SecretRef

Require = Literal["none", "signed", "signed+encrypted"]
Serial = Annotated[int, Field(ge=0, le=2**63 - 1)]


class TrustRule(Section):
    """`[[artifacts.trust]]`: what is asked of some models. The first rule that fits a model holds."""

    models: tuple[Pattern, ...] = ("*",)
    """Names of the models that it is for."""
    tenants: tuple[Pattern, ...] = ()
    """It is only for what load requests of these tenants give; none: for all that is loaded."""
    require: Require = "signed"
    """none: nothing. signed: a signature of somebody trusted. signed+encrypted: and files encrypted at rest."""
    public_keys: tuple[Path, ...] = ()
    """Keys that may have signed (PEM, elliptic curve)."""
    certificate_authorities: tuple[Path, ...] = ()
    """Authorities (PEM) whose certificates may have signed, if they are of one of `signers`."""
    signers: tuple[Pattern, ...] = ()
    """Names that such a certificate may have: a URI, DNS name, or e-mail address among its alternative names, or its
    subject, as RFC 2253 writes it."""
    minimum_version: Serial = 0
    """The lowest version number that is served."""
    minimum_serial: Serial = 0
    """The lowest serial number of a release that is served."""
    require_release: bool = True
    """Signatures have to cover a release.json, without which older files can be put in the place of newer ones."""
    allow_rollback: bool = False
    """Serve releases older than the newest that was ever served."""
    allow_config_override: bool = False
    """Let load requests give a configuration that nobody has signed."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.require != "none" and not self.public_keys and not self.certificate_authorities:
            raise ValueError(
                "expected public_keys or certificate_authorities: whose signatures are to be trusted"
            )
        if self.certificate_authorities and not self.signers:
            raise ValueError(
                'expected signers beside certificate_authorities: whom of all that they have certified; ["*"] for all'
            )
        return self


class ArtifactsSettings(Section):
    """Whose models are served, and how they are kept."""

    trust: tuple[TrustRule, ...] = ()
    """Rules, the first that fits a model holds; none: all models are served."""
    allow_pickle: tuple[Pattern, ...] = ()
    """Models that may hold pickles, which run any code when they are read; all others are refused if they do.
    Repeatable; `,` in the environment."""
    key_encryption_key: SecretRef | None = None
    """Where the key is that opens the keys of encrypted files, as file:/path, env:NAME or vault:mount/path#field."""
    old_key_encryption_keys: tuple[SecretRef, ...] = ()
    """Where older key-encryption keys are, for files that are not rewrapped yet. Repeatable; `,` in the environment."""
    state_file: Path | None = None
    """What remembers the newest release of each model; none: `penstock/releases.json` in $XDG_STATE_HOME, which is
    ~/.local/state unless it says otherwise."""
    memory_folder: Path | None = None
    """Where decrypted files lie while they are served; none: /dev/shm, or where temporary files lie."""

    def rule_for(self, model: str, tenant: str = "") -> TrustRule | None:
        """The rule that holds for a model; `tenant`: whose load request gives it, empty: it is on disk."""
        for rule in self.trust:
            of_tenant = tenant and matches(tenant, rule.tenants)
            if matches(model, rule.models) and (not rule.tenants or of_tenant):
                return rule
        return None

    def may_hold_pickles(self, model: str) -> bool:
        """Whether it is allowed by name."""
        return matches(model, self.allow_pickle)

    @property
    def state_path(self) -> Path:
        """`state_file`, resolved."""
        return self.state_file or state_folder() / "releases.json"
