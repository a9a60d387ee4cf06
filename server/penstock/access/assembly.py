"""Makes the guard that the settings ask for, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.access.api_key_auth import ApiKeyAuthenticator
from penstock.access.authenticator import Authenticator
from penstock.access.certificate_auth import CertificateAuthenticator
from penstock.access.guard import Guard
from penstock.access.jwt_auth import JwtAuthenticator
from penstock.access.quota_service import QuotaService
from penstock.access.quota_source import StoredTenants
from penstock.access.session import OnRefusal
from penstock.access.tenants import TenantStore
from penstock.config import Settings
from penstock.errors import ConfigError
from penstock.secrets.source import SecretSource


class Access:
    """Who may do what, for one gateway."""

    def __init__(
        self,
        settings: Settings,
        secrets: SecretSource,
        on_weights: Callable[[Mapping[str, float]], None] = lambda weights: None,
        on_refusal: OnRefusal = lambda principal, error, verb, model: None,
    ) -> None:
        """`on_weights` hears of tenants' weights whenever they may be others.

        Raises ConfigError for a file of tenants that can't be used, Unavailable for one that can't be now."""
        self._secrets = secrets
        self._starts: list[Callable[[], object]] = []
        self._ends: list[Callable[[], None]] = []
        self.guard: Guard | None = None
        """None: access is not controlled."""
        self.tenants: TenantStore | None = None
        """Likewise."""
        self.tokens: JwtAuthenticator | None = None
        """None: no issuer of tokens is known."""
        self.quotas: QuotaService | None = None
        """None: access is not controlled. Who made this starts and closes them, on the event loop: after `start`,
        and before `close`."""
        if settings.access.mode != "off":
            self.tenants = tenants = TenantStore(settings.access.tenants_path)
            self._ends.append(tenants.close)
            password = self._redis_password(settings)
            self.quotas = QuotaService(
                settings.quotas, StoredTenants(tenants), password, on_weights
            )
            self.guard = Guard(
                settings.access,
                [self._api_keys(tenants), *self._jwt(settings)],
                CertificateAuthenticator(settings.access.certificates),
                self.quotas.of,
                on_refusal,
                reach_of=lambda tenant: tenants.snapshot.reach(tenant),
            )

    @property
    def may_keep(self) -> Callable[[str, str], bool] | None:
        """Whether a tenant allows that its requests to a model are kept; None: access is not controlled."""
        tenants = self.tenants
        if tenants is None:
            return None
        return lambda tenant, model: tenants.snapshot.may_keep(tenant, model)

    def start(self) -> None:
        """Get what credentials are checked by; until it is here they can't be. Raises ConfigError if something can't be
        had as things are; all else is there then."""
        problems = []
        for start in self._starts:
            try:
                start()
            except ConfigError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def close(self) -> None:
        """End threads and connections. May block for a moment."""
        for end in reversed(self._ends):
            end()

    def _api_keys(self, tenants: TenantStore) -> Authenticator:
        keys = ApiKeyAuthenticator(tenants)
        self._ends.append(keys.close)
        return keys

    def _redis_password(self, settings: Settings) -> Callable[[], str] | None:
        ref = settings.quotas.redis_password
        if ref is None:
            return None
        # the first look may wait for Vault, later ones don't
        self._starts.append(lambda: self._secrets.get(ref))
        return lambda: self._secrets.get(ref).text()

    def _jwt(self, settings: Settings) -> list[Authenticator]:
        if not settings.access.jwt:
            return []
        self.tokens = tokens = JwtAuthenticator.of(settings.access.jwt, self._secrets.get)
        self._starts.append(tokens.start)
        self._ends.append(tokens.close)
        return [tokens]
