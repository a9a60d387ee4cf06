"""What the server is to Vault: logs in, and has its token live on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from penstock.errors import ConfigError
from penstock.secrets.files import SecretFiles
from penstock.secrets.secret import Secret
from penstock.secrets.stores import EnvironmentStore
from penstock.secrets.vault_client import Login, VaultClient
from penstock.secrets_config import SecretRef, SecretsSettings

_log = logging.getLogger(__name__)


class VaultToken:
    """One token. What it is made of is read from its files each time: they may have been rotated."""

    def __init__(
        self, settings: SecretsSettings, client: VaultClient, clock: Callable[[], float]
    ) -> None:
        self._settings: Final = settings
        self._client: Final = client
        self._clock: Final = clock
        self._files: Final = SecretFiles(strict=settings.strict_permissions)
        self._variables: Final = EnvironmentStore()
        self._renewable = False
        self._due_at: float | None = None
        """When two thirds of its life are over; None: there is none yet."""

    @property
    def due_in_s(self) -> float:
        """Until it has to be renewed."""
        return 0.0 if self._due_at is None else max(self._due_at - self._clock(), 0.0)

    def keep_fresh(self) -> None:
        """Log in if that was not done yet; renew the token when its time has come. Raises ConfigError."""
        if self._due_at is None:
            self.log_in()
        elif self._clock() >= self._due_at:
            self._renew()

    def log_in(self) -> None:
        """Get a token. Raises ConfigError."""
        self._due_at = None
        self._take(self._log_in())

    def _renew(self) -> None:
        if self._renewable:
            try:
                self._take(self._client.renew_token())
            except ConfigError as error:
                _log.info("Vault does not renew the token, logging in anew: %s", error)
            else:
                return
        self.log_in()

    def _take(self, login: Login) -> None:
        self._renewable = login.renewable
        life_s = login.ttl_s * 2 / 3 if login.ttl_s > 0 else math.inf
        self._due_at = self._clock() + life_s

    def _log_in(self) -> Login:
        settings = self._settings
        mount = settings.vault_auth_mount.strip("/") or settings.vault_auth
        match settings.vault_auth:
            case "token":
                return self._client.use_token(self._read("vault_token").text())
            case "approle":
                role_id, secret_id = self._read("vault_role_id"), self._read("vault_secret_id")
                return self._client.log_in_by_role(mount, role_id.text(), secret_id.text())
            case "kubernetes":
                token = self._read("vault_service_token").text()
                return self._client.log_in_by_service_account(mount, settings.vault_role, token)

    def _read(self, name: str) -> Secret:
        ref: SecretRef = getattr(self._settings, name)
        try:
            if ref.kind == "file":
                return self._files.read(ref.path)
            return self._variables.read(ref).secret
        except ConfigError as error:
            raise ConfigError(f"secrets.{name}: {error}") from None
