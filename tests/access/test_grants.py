"""Nobody makes a key that may do more than himself."""

from __future__ import annotations

import pytest

from penstock.access.grants import Grants
from penstock.access.principal import Principal
from penstock.access_config import BUILT_IN, OWN, Role
from penstock.errors import Forbidden
from penstock.verbs import Verb

ROLES = {
    **BUILT_IN,
    "of-c": Role(verbs=(Verb.MANAGE_TENANTS, Verb.READ_AUDIT), tenants=("c-*",)),
    "of-c-1": Role(verbs=(Verb.READ_AUDIT,), tenants=("c-1",)),
    "own-audit": Role(verbs=(Verb.READ_AUDIT,), tenants=(OWN,)),
    "loads-x": Role(verbs=(Verb.LOAD,), models=("x",)),
    "loads-x-and-y": Role(verbs=(Verb.LOAD,), models=("x", "y")),
}


def grants(*roles: str, models: tuple[str, ...] = ("*",)) -> Grants:
    return Grants(Principal("key:x", "a", roles, "api_key", models), ROLES)


def may(given: Grants, role: str, tenant: str = "a", models: tuple[str, ...] = ("*",)) -> bool:
    try:
        given.check_key(tenant, (role,), models)
    except Forbidden as error:
        assert role in str(error) or models[0] in str(error)
        return False
    return True


def test_who_manages_his_own_tenant_does_not_bound_it() -> None:
    assert not grants("tenant-admin").bounds("a")
    assert grants("admin").bounds("a")
    assert grants("of-c").bounds("c-1")
    assert not grants("of-c").bounds("a")
    assert not grants("auditor").bounds("a")
    with pytest.raises(Forbidden, match="not allowed: change what bounds tenant 'a'"):
        grants("tenant-admin").check_bounds("a")


@pytest.mark.parametrize(
    ("own", "given"),
    [
        (("tenant-admin",), {"user", "viewer", "tenant-admin"}),
        (("tenant-admin", "loads-x"), {"user", "viewer", "tenant-admin", "loads-x"}),
        (("tenant-admin", "own-audit"), {"user", "viewer", "tenant-admin", "own-audit"}),
        (("tenant-admin", "operator"), {"user", "viewer", "tenant-admin", "operator", "loads-x", "loads-x-and-y"}),
        (("admin",), set(ROLES)),
    ],
)  # fmt: skip
def test_roles_that_may_be_given(own: tuple[str, ...], given: set[str]) -> None:
    assert {role for role in ROLES if may(grants(*own), role)} == given


def test_tenants_of_a_role_are_within_those_of_the_giver() -> None:
    given = {role for role in ROLES if may(grants("of-c"), role, "c-1")}
    assert given == {"user", "viewer", "tenant-admin", "of-c", "own-audit"}
    # what he may only do with his own is not given in another one's name
    assert not may(grants("of-c", "own-audit"), "own-audit", "d")


def test_models_of_a_key_are_within_those_of_the_giver() -> None:
    narrow = grants("admin", models=("x", "d*"))
    assert may(narrow, "user", models=("x",))
    assert may(narrow, "user", models=("d*", "x"))
    assert not may(narrow, "user", models=("*",))
    assert not may(narrow, "user", models=("digits",))
