"""Where the keys of an issuer come from: its server, a file, or a secret."""

from __future__ import annotations

from penstock.access.key_source import KeySource
from penstock.access.local_keys import FileKeys, ReadSecret, SecretKeys
from penstock.access.remote_keys import RemoteKeys
from penstock.jwt_config import JwtIssuer


def key_source(issuer: JwtIssuer, read_secret: ReadSecret) -> KeySource:
    """What the issuer's configuration says."""
    if issuer.secret is not None:
        return SecretKeys(issuer, issuer.secret, read_secret)
    if issuer.jwks_file is not None:
        return FileKeys(issuer, issuer.jwks_file)
    return RemoteKeys(issuer)
