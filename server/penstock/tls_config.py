"""`[tls]`: whether connections are encrypted, and whether clients have to show certificates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import StringConstraints, model_validator

from penstock.config_section import Section
from penstock.secrets_config import SecretRef

ClientAuth = Literal["none", "optional", "require"]
CertName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
TlsVersion = Literal["1.2", "1.3"]

CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""Of TLS 1.2: with forward secrecy, and authenticated. Those of TLS 1.3 are all of this kind."""


class TlsSettings(Section):
    """TLS on all ports. Nothing set: plain text."""

    cert_file: Path | None = None
    """The server's certificate, and what leads from it to its CA (PEM); turns TLS on at all ports. Watched: a new one
    is taken without a restart."""
    key_file: Path | None = None
    """Private key of the server's certificate (PEM)."""
    key_passphrase: SecretRef | None = None
    """Where the passphrase of the private key is, if it has one: file:/path, env:NAME or vault:mount/path#field."""
    client_ca_file: Path | None = None
    """CAs whose certificates are taken from clients (PEM)."""
    client_auth: ClientAuth = "none"
    """none: clients are asked for no certificate. optional: they may show one. require: without one there is no
    connection."""
    min_version: TlsVersion = "1.2"
    """Oldest version of TLS that is spoken."""
    certs_dir: Path | None = None
    """Folder of `penstock certs`, in place of the three files: TLS is on, with a certificate of its own CA."""
    certs_name: CertName = "localhost"
    """Name of this server's certificate in the folder of `penstock certs`."""
    auto_renew: bool = True
    """Renew the certificate in the folder of `penstock certs` before it ends, where the key of the CA is there
    too."""

    @model_validator(mode="before")
    @classmethod
    def _of_folder(cls, values: Any) -> Any:
        """The files that the folder stands for."""
        if not isinstance(values, Mapping) or not isinstance(values.get("certs_dir"), str | Path):
            return values
        folder = Path(values["certs_dir"])
        own = folder / "server" / str(values.get("certs_name", "localhost"))
        files = {"cert_file": own / "tls.crt", "key_file": own / "tls.key"}
        if values.get("client_auth", "none") != "none" and not values.get("client_ca_file"):
            files["client_ca_file"] = folder / "ca.crt"
        for name, path in files.items():
            # settings that are written and read again have both
            if (given := values.get(name)) is not None and Path(given) != path:
                raise ValueError(f"tls.certs_dir has the {name} already: expected one of the two")
        return {**values, **files}

    @model_validator(mode="after")
    def _check_together(self) -> TlsSettings:
        if self.cert_file is None:
            others = ("key_file", "key_passphrase", "client_ca_file")
            given = [name for name in others if getattr(self, name)]
            if self.client_auth != "none":
                given.append("client_auth")
            if given:
                raise ValueError(f"tls.{given[0]} needs tls.cert_file and tls.key_file")
        elif self.key_file is None:
            raise ValueError("tls.cert_file needs tls.key_file, its private key")
        if self.client_auth != "none" and self.client_ca_file is None:
            raise ValueError(
                f"tls.client_auth {self.client_auth} needs tls.client_ca_file, to tell whose"
                " certificates are taken"
            )
        if self.client_auth == "none" and self.client_ca_file is not None:
            raise ValueError(
                "tls.client_ca_file needs tls.client_auth optional or require: else nobody is"
                " asked for a certificate"
            )
        return self

    @property
    def enabled(self) -> bool:
        """Whether all ports speak TLS."""
        return self.cert_file is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that are read: certificate, key, and the clients' CAs where clients show certificates."""
        return tuple(filter(None, (self.cert_file, self.key_file, self.client_ca_file)))
