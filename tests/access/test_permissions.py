"""Roles → what they allow."""

from __future__ import annotations

import pytest

from penstock.access.permissions import Permissions
from penstock.access.principal import Principal
from penstock.access_config import BUILT_IN, OWN, Role
from penstock.verbs import Verb

OWN_ROLES = {
    **BUILT_IN,
    "team": Role(verbs=(Verb.INFER, Verb.CONFIGURE), models=("team-*",)),
    "reader-of-b": Role(verbs=(Verb.READ_AUDIT,), tenants=("b",)),
    "helper": Role(verbs=(Verb.MANAGE_TENANTS,), tenants=(OWN, "c-*")),
}


def permissions(*roles: str, models: tuple[str, ...] = ("*",)) -> Permissions:
    return Permissions(Principal("key:x", "a", roles, "api_key", models), OWN_ROLES)


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        (("user",), {Verb.INFER, Verb.READ_METADATA}),
        (("viewer",), {Verb.READ_METADATA, Verb.READ_STATISTICS}),
        (("auditor",), {Verb.READ_AUDIT}),
        (("tenant-admin",), {Verb.MANAGE_TENANTS}),
        (("admin",), set(Verb)),
        (("user", "auditor"), {Verb.INFER, Verb.READ_METADATA, Verb.READ_AUDIT}),
        ((), set()),
        (("taken out of the settings",), set()),
    ],
)
def test_built_in_roles(roles: tuple[str, ...], allowed: set[Verb]) -> None:
    assert {verb for verb in Verb if permissions(*roles).may(verb)} == allowed
    assert {verb for verb in Verb if permissions(*roles).may(verb, "any model")} == allowed


def test_models_are_those_of_the_role_and_of_the_key() -> None:
    team = permissions("team")
    assert team.may(Verb.INFER, "team-x")
    assert not team.may(Verb.INFER, "other")
    narrowed = permissions("team", models=("*-x",))
    assert narrowed.may(Verb.INFER, "team-x")
    assert not narrowed.may(Verb.INFER, "team-y")
    assert not narrowed.may(Verb.INFER, "other-x")


def test_models_are_those_of_the_tenant_too() -> None:
    principal = Principal("key:x", "a", ("user",), "api_key", ("x", "y"))
    of_tenant = Permissions(principal, OWN_ROLES, ("y", "z"))
    assert [model for model in "xyz" if of_tenant.may(Verb.INFER, model)] == ["y"]


def test_what_is_the_servers_needs_a_role_for_all_models() -> None:
    assert not permissions("team").may(Verb.CONFIGURE)
    assert permissions("team").may(Verb.CONFIGURE, "team-x")
    assert permissions("operator").may(Verb.CONFIGURE)
    assert not permissions("operator", models=("x",)).may(Verb.CONFIGURE)
    assert not permissions("monitor", models=("x",)).may(Verb.METRICS)


def test_tenants() -> None:
    assert permissions("tenant-admin").may(Verb.MANAGE_TENANTS, tenant="a")
    assert not permissions("tenant-admin").may(Verb.MANAGE_TENANTS, tenant="b")
    assert permissions("admin").may(Verb.MANAGE_TENANTS, tenant="b")
    assert permissions("helper").may(Verb.MANAGE_TENANTS, tenant="a")
    assert permissions("helper").may(Verb.MANAGE_TENANTS, tenant="c-1")
    assert not permissions("helper").may(Verb.MANAGE_TENANTS, tenant="b")
    assert not permissions("reader-of-b").may(Verb.READ_AUDIT, tenant="a")
