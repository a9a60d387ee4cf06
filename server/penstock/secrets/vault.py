"""Secrets in HashiCorp Vault: its KV engine, versions 1 and 2."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.errors import ConfigError, VaultRefused
from penstock.secrets.secret import Secret
from penstock.secrets.stores import Reading
from penstock.secrets.vault_client import VaultClient
from penstock.secrets.vault_token import VaultToken
from penstock.secrets_config import SecretRef, SecretsSettings


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a secret lies in an engine."""

    mount: str
    path: str
    version: str


class VaultStore:
    """`vault:mount/path#field`. Nothing is imported or connected before the first read."""

    def __init__(
        self, settings: SecretsSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings: Final = settings
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._client: VaultClient | None = None
        self._token: VaultToken | None = None

    def read(self, ref: SecretRef) -> Reading:
        """What Vault has. Logs in anew, once, where Vault does not know the token any more."""
        if not self._settings.vault_address:
            raise ConfigError(f"{ref}: where Vault is isn't said: set secrets.vault_address")
        with self._lock:
            try:
                client, token = self._connected()
                token.keep_fresh()
                try:
                    return self._read(client, token, ref)
                except VaultRefused:
                    # revoked, or of a Vault that was sealed and restarted
                    token.log_in()
                    return self._read(client, token, ref)
            except ConfigError as error:
                text = str(error)
                raise ConfigError(text if text.startswith(str(ref)) else f"{ref}: {text}") from None

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = self._token = None

    def _connected(self) -> tuple[VaultClient, VaultToken]:
        if self._client is None or self._token is None:
            self._client = VaultClient(self._settings)
            self._token = VaultToken(self._settings, self._client, self._clock)
        return self._client, self._token

    def _read(self, client: VaultClient, token: VaultToken, ref: SecretRef) -> Reading:
        place = self._place(client, ref)
        data, lease_s = client.read(place.mount, place.path, place.version)
        fresh_s = min(self._settings.vault_refresh_secs, token.due_in_s)
        if lease_s > 0:
            fresh_s = min(fresh_s, lease_s * 2 / 3)
        return Reading(_field(ref, data), max(fresh_s, 1.0))

    def _place(self, client: VaultClient, ref: SecretRef) -> _Place:
        """Vault knows where a mount's name ends; where it may not be asked, the first part is the mount."""
        mount, _, path = ref.path.partition("/")
        version = self._settings.vault_kv_version
        if version != "auto":
            return _Place(mount, path, version)
        found = client.mount_of(ref.path)
        if found is None:
            return _Place(mount, path, "2")
        return _Place(found.mount, ref.path.removeprefix(f"{found.mount}/"), found.version)


def _field(ref: SecretRef, data: Mapping[str, Any]) -> Secret:
    value = data.get(ref.field)
    if ref.field not in data:
        fields = ", ".join(sorted(data)) or "none"
        raise ConfigError(f"{ref}: there is no such field, its fields are: {fields}")
    if not isinstance(value, str):
        raise ConfigError(f"{ref}: is {type(value).__name__}, expected text")
    if not value:
        raise ConfigError(f"{ref}: is empty")
    return Secret(value.encode())
