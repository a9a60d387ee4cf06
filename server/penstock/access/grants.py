"""What those who manage tenants may give away: nobody makes a key that may do more than himself.

Whoever manages only his own tenant (`@own`) makes and ends its keys and sees what it used. What bounds that tenant
(whether it is enabled, its models, weight and quotas) is for those whose roles name tenants beside their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.access.principal import Principal
from penstock.access_config import OWN, Role, matches
from penstock.errors import Forbidden
from penstock.verbs import Verb

GIVEN_WITH_A_TENANT: Final = frozenset(
    {Verb.INFER, Verb.READ_METADATA, Verb.READ_STATISTICS, Verb.MANAGE_TENANTS}
)
"""What a tenant is for: who manages it may let others do that in its name, even where he may not himself."""


class Grants:
    """Of one who manages tenants."""

    def __init__(self, principal: Principal, roles: Mapping[str, Role]) -> None:
        self._principal: Final = principal
        self._known = roles
        self._roles = [roles[name] for name in principal.roles if name in roles]

    def bounds(self, tenant: str) -> bool:
        """Whether he may change what bounds this tenant."""
        return any(
            Verb.MANAGE_TENANTS in role.verbs and matches(tenant, role.tenants)
            for role in self._roles
        )

    def check_bounds(self, tenant: str) -> None:
        """Raises Forbidden, with the same words whether there is such a tenant or not."""
        if not self.bounds(tenant):
            raise Forbidden(f"not allowed: change what bounds tenant '{tenant[:200]}'")

    def check_key(self, tenant: str, roles: tuple[str, ...], models: tuple[str, ...]) -> None:
        """Raises Forbidden where a key of that tenant, which he manages, could do more than its maker.

        The roles are known."""
        own = self._principal.models
        for pattern in models:
            if "*" not in own and pattern not in own:
                raise Forbidden(f"not allowed: make a key for models '{pattern[:200]}'")
        for name in roles:
            role = self._known[name]
            if not all(self._may_give(verb, role, tenant) for verb in role.verbs):
                raise Forbidden(f"not allowed: make a key with role '{name[:200]}'")

    def _may_give(self, verb: Verb, role: Role, tenant: str) -> bool:
        if verb in GIVEN_WITH_A_TENANT and set(role.tenants) <= {OWN}:
            return True
        return any(verb in mine.verbs and self._covers(mine, role, tenant) for mine in self._roles)

    def _covers(self, mine: Role, theirs: Role, tenant: str) -> bool:
        """Whether all models and tenants that their role is about are my role's too. Of two patterns only the same and
        `*` are sure to be so."""
        for pattern in theirs.models:
            if "*" not in mine.models and pattern not in mine.models:
                return False
        for pattern in theirs.tenants:
            if pattern == OWN:
                own = OWN in mine.tenants and tenant == self._principal.tenant
                covered = own or matches(tenant, mine.tenants)
            else:
                covered = "*" in mine.tenants or pattern in mine.tenants
            if not covered:
                return False
        return True
