"""What roles allow: verbs x models x tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.access.principal import Principal
from penstock.access_config import OWN, Role, matches
from penstock.verbs import Verb

ANY: Final = "*"
"""As a model's name: allowed only where all models are."""

SERVER_WIDE: Final = frozenset({Verb.METRICS, Verb.CONFIGURE})
"""Where no model is named they are about all of them."""


class Permissions:
    """Of one principal."""

    def __init__(
        self, principal: Principal, roles: Mapping[str, Role], reach: tuple[str, ...] = ("*",)
    ) -> None:
        """A role that is not known, for it was taken out of the settings, allows nothing. `reach`: patterns of the
        models that the principal's tenant may have to do with."""
        self._principal = principal
        self._reach = reach
        self._roles = [roles[name] for name in principal.roles if name in roles]

    def may(self, verb: Verb, model: str = "", tenant: str = "") -> bool:
        """Whether it may do that: with this model, where one is named, and with what is that tenant's."""
        if not model and verb in SERVER_WIDE:
            model = ANY
        if model and not (matches(model, self._principal.models) and matches(model, self._reach)):
            return False
        return any(
            verb in role.verbs
            and (not model or matches(model, role.models))
            and (not tenant or self._covers(role, tenant))
            for role in self._roles
        )

    def _covers(self, role: Role, tenant: str) -> bool:
        own = OWN in role.tenants and tenant == self._principal.tenant
        return own or matches(tenant, role.tenants)
