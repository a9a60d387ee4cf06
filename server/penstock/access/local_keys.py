"""The keys of an issuer that lie here: in a file, or as a secret."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from penstock.access.jwk_set import KeySet, parse_key_set, secret_key_set
from penstock.access.key_source import NO_KEYS, Reads, explained, setting_of
from penstock.errors import ConfigError
from penstock.jwt_config import JwtIssuer
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef
from penstock.wording import counted

_log = logging.getLogger(__name__)

ReadSecret = Callable[[SecretRef], Secret]
"""Where a secret is → what it is now. Quick but for the first time; raises ConfigError if there is none."""


class FileKeys:
    """Of a file, which is looked at again when requests come in. A broken one changes nothing."""

    def __init__(self, issuer: JwtIssuer, path: Path) -> None:
        self._issuer, self._path = issuer, path
        self._seen: tuple[int, ...] = ()
        self.keys = NO_KEYS
        self.version = 0
        self.reads = Reads()

    @property
    def is_pending(self) -> bool:
        return not self.keys.keys

    def start(self) -> None:
        self._seen = self._look()
        try:
            self.keys = self._read()
        except (OSError, ValueError) as error:
            setting = setting_of(self._issuer, "jwks_file")
            raise ConfigError(f"{setting}: {self._path}: no keys: {explained(error)}") from None

    def refresh(self) -> None:
        if (seen := self._look()) == self._seen:
            return
        self._seen = seen
        try:
            keys = self._read()
        except (OSError, ValueError) as error:
            self.reads.failure()
            _log.warning("%s: no keys: %s; those before go on", self._path, explained(error))
            return
        if keys.fingerprint != self.keys.fingerprint:
            self.keys = keys
            self.version += 1
            _log.info("%s: read anew, %s", self._path, counted(len(keys.keys), "key"))

    def ask(self) -> None:
        self.refresh()

    def close(self) -> None:
        pass

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self) -> KeySet:
        with self._path.open("rb") as file:
            text = file.read(self._issuer.max_jwks_bytes + 1)
        if len(text) > self._issuer.max_jwks_bytes:
            raise ValueError(f"over {self._issuer.max_jwks_bytes} bytes")
        keys = parse_key_set(text, self._issuer.accepted_algorithms)
        self.reads.success()
        return keys


class SecretKeys:
    """A secret that this server and the issuer share, as the store of secrets has it now."""

    def __init__(self, issuer: JwtIssuer, ref: SecretRef, read_secret: ReadSecret) -> None:
        self._issuer, self._ref, self._read_secret = issuer, ref, read_secret
        self.keys = NO_KEYS
        self.version = 0
        self.reads = Reads()
        self._complaint = ""
        """What the log was told last: it is told once."""

    @property
    def is_pending(self) -> bool:
        return not self.keys.keys

    def start(self) -> None:
        try:
            self.keys = self._read()
        except ValueError as error:
            setting = setting_of(self._issuer, "secret")
            raise ConfigError(f"{setting}: {self._ref}: {error}") from None
        self.reads.success()

    def refresh(self) -> None:
        try:
            keys = self._read()
        except (ConfigError, ValueError) as error:
            self._complain(str(error))
            return
        self._complaint = ""
        if keys.fingerprint != self.keys.fingerprint:
            self.reads.success()
            self.keys = keys
            self.version += 1

    def ask(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            self.reads.failure()
            _log.warning("access.jwt: %s: %s; the one before goes on", self._ref, reason)

    def _read(self) -> KeySet:
        secret = self._read_secret(self._ref)
        return secret_key_set(secret.reveal(), self._issuer.accepted_algorithms)
