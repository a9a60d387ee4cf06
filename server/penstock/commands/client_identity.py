"""What commands that talk to a server show of themselves, and whom they trust."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from penstock.errors import InvalidRequest

API_KEY: Final = "PENSTOCK_API_KEY"
"""Environment variable of the key that is shown to servers: as an argument, everyone on the machine could read it."""

CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file", metavar="FILE", help="CAs of servers' certificates, in place of the system's."
    ),
]
CertFile = Annotated[
    Path | None,
    typer.Option("--cert-file", metavar="FILE", help="Certificate to show to the server."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Its private key; none: in --cert-file too."),
]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a client trusts, and what it shows of itself."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    api_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> Identity:
        """These files, and the environment's API key."""
        return cls(ca_file, cert_file, key_file, os.environ.get(API_KEY, ""))

    @property
    def speaks_tls(self) -> bool:
        """Whether it was given what only TLS needs."""
        return any((self.ca_file, self.cert_file, self.key_file))

    def context(self) -> ssl.SSLContext:
        """For a connection. Raises InvalidRequest, naming the file, for one that is no good."""
        if self.key_file is not None and self.cert_file is None:
            raise InvalidRequest("--key-file needs --cert-file")
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise InvalidRequest(f"--ca-file: {self.ca_file}: {why(error)}") from error
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, _no_passphrase)
            except OSError as error:
                files = " and ".join(map(str, filter(None, (self.cert_file, self.key_file))))
                raise InvalidRequest(f"--cert-file: {files}: {why(error)}") from error
        return context


def _no_passphrase() -> str:
    """OpenSSL would ask for it at the terminal."""
    raise InvalidRequest("--key-file: the key has a passphrase, expected one without")


def why(error: OSError) -> str:
    """What is wrong with a file or a handshake, in a few words."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not what was expected").lower().replace("_", " ")
    return error.strerror or str(error)
