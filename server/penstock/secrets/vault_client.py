"""Vault's API by `hvac`, its errors in our own words. Imported with the first secret that is kept there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.errors import ConfigError, VaultMissing, VaultRefused
from penstock.secrets_config import SecretsSettings


@dataclass(frozen=True, slots=True)
class Mount:
    """A KV engine."""

    mount: str
    version: str


@dataclass(frozen=True, slots=True)
class Login:
    """What a login, or a token's renewal, gives."""

    ttl_s: float
    """0: for ever."""
    renewable: bool


class VaultClient:
    """One connection. Raises ConfigError for all that goes wrong: VaultRefused where another token may do better."""

    def __init__(self, settings: SecretsSettings) -> None:
        try:
            self._hvac: Final = importlib.import_module("hvac")
            self._requests: Final = importlib.import_module("requests")
        except ModuleNotFoundError:
            raise ConfigError(
                "Vault needs a package that is not installed: pip install 'penstock[vault]'"
            ) from None
        self._address: Final = settings.vault_address
        self._client: Final = self._hvac.Client(
            url=settings.vault_address,
            # not what hvac finds in the environment or at home
            token="",
            namespace=settings.vault_namespace or None,
            verify=str(settings.vault_ca_file) if settings.vault_ca_file else True,
            timeout=settings.vault_timeout_secs,
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.adapter.close()

    def use_token(self, token: str) -> Login:
        """Take this token, and ask what it is good for."""
        self._client.token = token
        data = _mapping(self._ask(self._client.auth.token.lookup_self), "data")
        return Login(_number(data.get("ttl")), bool(data.get("renewable")))

    def renew_token(self) -> Login:
        """Have the token live longer."""
        return _login(self._ask(self._client.auth.token.renew_self))

    def log_in_by_role(self, mount: str, role_id: str, secret_id: str) -> Login:
        """AppRole."""
        self._client.token = ""
        login = self._client.auth.approle.login
        return _login(self._ask(lambda: login(role_id, secret_id, mount_point=mount)))

    def log_in_by_service_account(self, mount: str, role: str, service_token: str) -> Login:
        """Kubernetes."""
        self._client.token = ""
        login = self._client.auth.kubernetes.login
        return _login(self._ask(lambda: login(role, service_token, mount_point=mount)))

    def mount_of(self, path: str) -> Mount | None:
        """The engine that has this path. None where the token may not ask."""
        try:
            answer = self._ask(
                lambda: self._client.adapter.get(f"/v1/sys/internal/ui/mounts/{path}")
            )
        except (VaultRefused, VaultMissing):
            return None
        data = _mapping(answer, "data")
        if data.get("type") not in ("kv", "generic"):
            raise ConfigError(f"the engine at {data.get('path')} is {data.get('type')}, not kv")
        options = data.get("options") or {}
        return Mount(str(data["path"]).strip("/"), str(options.get("version", "1")))

    def read(self, mount: str, path: str, version: str) -> tuple[Mapping[str, Any], float]:
        """The fields, and the seconds of their lease, 0 where there is none."""
        if version == "1":
            v1 = self._client.secrets.kv.v1
            answer = self._ask(lambda: v1.read_secret(path, mount_point=mount))
            return _mapping(answer, "data"), _number(answer.get("lease_duration"))
        v2 = self._client.secrets.kv.v2
        answer = self._ask(
            lambda: v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
        )
        return _mapping(_mapping(answer, "data"), "data"), _number(answer.get("lease_duration"))

    def _ask(self, call: Callable[[], Any]) -> Mapping[str, Any]:
        """`from None` throughout: a request's own error may carry what was sent."""
        errors = self._hvac.exceptions
        try:
            answer = call()
        except (errors.Forbidden, errors.Unauthorized):
            raise VaultRefused("Vault does not allow it: permission denied") from None
        except errors.InvalidPath:
            raise VaultMissing("Vault has no such secret, or it was deleted") from None
        except errors.VaultError as error:
            reason = "; ".join(map(str, error.errors or ())) or type(error).__name__
            raise ConfigError(f"Vault refuses: {reason}") from None
        except self._requests.exceptions.SSLError:
            raise ConfigError(
                f"Vault's certificate at {self._address} is not trusted: see secrets.vault_ca_file"
            ) from None
        except (self._requests.exceptions.RequestException, OSError) as error:
            kind = type(error).__name__
            raise ConfigError(f"Vault at {self._address} can't be reached: {kind}") from None
        if not isinstance(answer, Mapping):
            raise ConfigError(f"{self._address} does not answer as Vault does")
        return answer


def _login(answer: Mapping[str, Any]) -> Login:
    auth = _mapping(answer, "auth")
    return Login(_number(auth.get("lease_duration")), bool(auth.get("renewable")))


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    if not isinstance(part, Mapping):
        raise ConfigError(f"Vault's answer has no {name}")
    return part


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
