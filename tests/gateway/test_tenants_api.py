"""/v2/tenants: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.access.permissions import Permissions
from penstock.access.principal import Principal
from penstock.access.session import OPEN, AnySession, Session
from penstock.access.tenant_changes import TenantChange
from penstock.access.tenant_records import SECONDS_A_DAY, Usage
from penstock.access.tenants import TenantStore
from penstock.access_config import BUILT_IN, Role
from penstock.errors import (
    AlreadyExists,
    Forbidden,
    InvalidRequest,
    NotFound,
    PenstockError,
    Unavailable,
    Unsupported,
)
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.route_table import RouteTable
from penstock.gateway.tenants_api import TenantsApi
from penstock.verbs import Verb

ROLES = {**BUILT_IN, "of-c": Role(verbs=(Verb.MANAGE_TENANTS,), tenants=("c-*",))}


class Api:
    """The routes, and a store to look into."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.store = TenantStore(file)
        self.told: list[TenantChange] = []
        self.refused: list[tuple[str, str]] = []
        self._routes = TenantsApi(self.store, ROLES, self.told.append)
        self.table = RouteTable(self._routes.routes())
        self.session: AnySession = OPEN
        self.become("root", "admin")

    def become(
        self, name: str, *roles: str, tenant: str = "a", models: tuple[str, ...] = ("*",)
    ) -> None:
        principal = Principal(f"key:{name}", tenant, roles, "api_key", models)

        def refused(_: Principal | None, error: PenstockError, verb: str, __: str) -> None:
            self.refused.append((str(error), verb))

        self.session = Session(principal, Permissions(principal, ROLES), None, refused)

    async def __call__(self, method: str, path: str = "", body: object = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        reply = await self.table(f"/v2/tenants{path}", HttpRequest(method, {}, data, self.session))
        assert isinstance(reply, HttpResponse)
        assert reply.status == 200
        return json.loads(reply.body)

    async def refuses(self, kind: type[PenstockError], *ask: Any) -> str:
        before = self.store.read()
        with pytest.raises(kind) as raised:
            await self(*ask)
        assert self.store.read() == before
        assert str(self.file) not in str(raised.value)
        return str(raised.value)

    def close(self) -> None:
        self._routes.close()
        self.store.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path / "tenants.db")
    yield made
    made.close()


async def test_a_tenant_from_its_creation_to_its_end(api: Api) -> None:
    made = await api("POST", "", {"name": "c-1", "models": ["d*"], "weight": 3})
    assert (made["name"], made["models"], made["weight"]) == ("c-1", ["d*"], 3.0)
    assert await api("GET") == {"tenants": [made]}
    changed = await api("POST", "/c-1", {"disabled": True, "weight": None})
    assert (changed["disabled"], changed["weight"], changed["models"]) == (True, None, ["d*"])
    changed = await api("POST", "/c-1", {"disabled": False, "models": ["*"]})
    assert await api("GET", "/c-1") == {**changed, "keys": [], "limits": {}}
    assert await api("DELETE", "/c-1") == {}
    assert await api("GET") == {"tenants": []}


async def test_keys(api: Api) -> None:
    await api("POST", "", {"name": "a"})
    made = await api("POST", "/a/keys", {"roles": ["viewer"], "label": "CI", "expires_in_s": 60})
    assert made["key"].startswith(made["id"] + "_")
    assert (made["roles"], made["models"], made["state"]) == (["viewer"], ["*"], "active")
    plain = await api("POST", "/a/keys")
    assert (plain["roles"], plain["expires_at"]) == (["user"], None)
    new = await api("POST", f"/a/keys/{made['id']}/rotate", {"overlap_s": 0})
    assert new["roles"] == ["viewer"]
    assert (await api("POST", f"/a/keys/{new['id']}/revoke"))["state"] == "revoked"
    states = {key["id"]: key["state"] for key in await api("GET", "/a/keys")}
    assert states == {made["id"]: "expired", plain["id"]: "active", new["id"]: "revoked"}
    assert all("key" not in key for key in (await api("GET", "/a"))["keys"])


async def test_a_secret_is_in_one_answer_only(api: Api) -> None:
    await api("POST", "", {"name": "a"})
    secret = (await api("POST", "/a/keys"))["key"].split("_")[2]
    assert secret not in json.dumps([await api("GET", "/a"), await api("GET", "/a/keys")])
    assert secret not in repr(api.told)


async def test_quotas(api: Api) -> None:
    await api("POST", "", {"name": "a"})
    limits = {"requests_per_s": 5, "in_flight": 2}
    assert await api("POST", "/a/quotas", {"limits": limits}) == {"*": limits}
    await api("POST", "/a/quotas", {"limits": {"rows_per_s": 1.5}, "models": "emb*"})
    await api("POST", "/a/quotas", {"limits": {"in_flight": None}})
    kept = {"*": {"requests_per_s": 5}, "emb*": {"rows_per_s": 1.5}}
    assert await api("GET", "/a/quotas") == kept == (await api("GET", "/a"))["limits"]
    assert await api("DELETE", "/a/quotas") == {}
    assert await api("GET", "/a/quotas") == {}


async def test_usage(api: Api) -> None:
    day = int(api.store._clock() // SECONDS_A_DAY)
    for name, days_ago in (("a", 0), ("a", 100), ("from-a-token", 0)):
        api.store.add_usage([Usage(tenant=name, model="m", day=day - days_ago, requests=7)])
    (line,) = await api("GET", "/a/usage")
    assert (line["tenant"], line["model"], line["requests"]) == ("a", "m", 7)
    assert len(await api("GET", "/a/usage/since/2020-01-01")) == 2
    assert len(await api("GET", "/from-a-token/usage")) == 1


@pytest.mark.parametrize(
    ("kind", "ask", "expected"),
    [
        (InvalidRequest, ("POST", "", {}), "missing required field `name`"),
        (InvalidRequest, ("POST", "", {"name": "a b"}), "a tenant's name has 1 to 64 letters"),
        (InvalidRequest, ("POST", "", {"name": "x", "wait": 2}), "unknown field `wait`"),
        (InvalidRequest, ("POST", "", {"name": "x", "weight": -1}), "a weight is a number above 0"),
        (InvalidRequest, ("POST", "", ["x"]), "the body is not as expected: Expected `object`"),
        (AlreadyExists, ("POST", "", {"name": "a"}), "there is a tenant 'a' already"),
        (InvalidRequest, ("POST", "/a", {}), "nothing to change: expected one of disabled, weight"),
        (InvalidRequest, ("POST", "/a", {"disabled": 1}), "Expected `bool`, got `int`"),
        (InvalidRequest, ("POST", "/a", {"models": []}), "expected 1 to 100 patterns"),
        (NotFound, ("POST", "/x", {"disabled": True}), "there is no tenant 'x'"),
        (NotFound, ("GET", "/x"), "there is no tenant 'x'"),
        (NotFound, ("DELETE", "/x"), "there is no tenant 'x'"),
        (NotFound, ("GET", "/x/keys"), "there is no tenant 'x'"),
        (NotFound, ("POST", "/x/keys"), "there is no tenant 'x'"),
        (NotFound, ("GET", "/x/usage"), "there is no tenant 'x'"),
        (NotFound, ("GET", "/x/quotas"), "there is no tenant 'x'"),
        (InvalidRequest, ("POST", "/a/keys", {"roles": ["king"]}), "there is no role 'king'"),
        (InvalidRequest, ("POST", "/a/keys", {"roles": []}), "needs 1 to 100 roles"),
        (InvalidRequest, ("POST", "/a/keys", {"expires_in_s": 0}), "lives for more than 0 s"),
        (NotFound, ("POST", "/a/keys/psk_1a2b3c4d5e/revoke"), "has no such key"),
        (NotFound, ("POST", "/a/keys/psk_1a2b3c4d5e/rotate"), "has no such key"),
        (InvalidRequest, ("POST", "/a/quotas", {}), "missing required field `limits`"),
        (InvalidRequest, ("POST", "/a/quotas", {"limits": {"x": 1}}), "unknown limit 'x'"),
        (InvalidRequest, ("POST", "/a/quotas", {"limits": {"in_flight": "1"}}), "Expected `int"),
        (InvalidRequest, ("GET", "/a/usage/since/May"), "'May' is no day, such as 2026-07-01"),
    ],
)
async def test_what_is_wrong_is_told(
    api: Api, kind: type[PenstockError], ask: tuple[Any, ...], expected: str
) -> None:
    api.store.create("a")
    assert expected in await api.refuses(kind, *ask)


async def test_a_tenants_own_admin_has_its_keys_but_not_its_bounds(api: Api) -> None:
    for name in ("a", "b"):
        api.store.create(name)
    theirs = api.store.keys.create("b").key
    boss = api.store.keys.create("a", roles=("admin",)).key
    api.become("boss-of-a", "tenant-admin")
    assert [tenant["name"] for tenant in (await api("GET"))["tenants"]] == ["a"]
    own = await api("POST", "/a/keys", {"roles": ["user", "tenant-admin"]})
    await api("POST", f"/a/keys/{own['id']}/rotate")
    await api("GET", "/a/quotas")
    for ask in (
        ("POST", "", {"name": "c"}),
        ("POST", "", {"name": "a"}),
        ("POST", "/a", {"weight": 100}),
        ("POST", "/a", {"disabled": False}),
        ("DELETE", "/a"),
        ("POST", "/a/quotas", {"limits": {"in_flight": None}}),
        ("DELETE", "/a/quotas"),
        ("POST", "/a/keys", {"roles": ["operator"]}),
        ("POST", f"/a/keys/{boss.id}/rotate"),
        ("GET", "/b"),
        ("POST", "/b/keys"),
        ("POST", f"/b/keys/{theirs.id}/revoke"),
    ):
        told = await api.refuses(Forbidden, *ask)
        assert api.refused.pop() == (told, "manage_tenants")
    # of others nothing is told, not even whether they are there
    assert (await api.refuses(Forbidden, "GET", "/b")).replace("'b'", "'x'") == (
        await api.refuses(Forbidden, "GET", "/x")
    )
    assert "no such key" in await api.refuses(NotFound, "POST", f"/a/keys/{theirs.id}/revoke")


async def test_a_key_is_not_for_more_models_than_its_makers(api: Api) -> None:
    api.store.create("a")
    api.become("narrow", "tenant-admin", models=("d*", "x"))
    assert (await api("POST", "/a/keys"))["models"] == ["d*", "x"]
    assert (await api("POST", "/a/keys", {"models": ["x"]}))["models"] == ["x"]
    await api.refuses(Forbidden, "POST", "/a/keys", {"models": ["*"]})


async def test_an_admin_of_some_tenants_makes_and_bounds_those(api: Api) -> None:
    api.become("boss-of-c", "of-c")
    await api("POST", "", {"name": "c-9"})
    await api("POST", "/c-9/quotas", {"limits": {"in_flight": 3}})
    await api("POST", "/c-9/keys", {"roles": ["tenant-admin"]})
    await api.refuses(Forbidden, "POST", "", {"name": "d"})
    await api("DELETE", "/c-9")


async def test_changes_leave_a_trace_and_looks_do_not(api: Api) -> None:
    await api("POST", "", {"name": "a"})
    await api("POST", "/a/keys", {"label": "CI"})
    await api("GET", "/a")
    await api.refuses(InvalidRequest, "POST", "/a/quotas", {"limits": {"in_flight": 0}})
    told = [(change.action, change.outcome, change.principal) for change in api.told]
    assert told == [
        ("tenants.create", "allowed", "key:root"),
        ("tenants.create", "done", "key:root"),
        ("tenants.key.create", "allowed", "key:root"),
        ("tenants.key.create", "done", "key:root"),
        ("tenants.quota.set", "allowed", "key:root"),
        ("tenants.quota.set", "failed", "key:root"),
    ]
    assert api.told[3].details == {"roles": "user", "label": "CI"}


async def test_a_file_that_fails_is_not_named_to_clients(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.file.with_name("tenants.db-wal").unlink()
    api.file.with_name("tenants.db-shm").unlink()
    api.file.unlink()
    with pytest.raises(Unavailable) as raised:
        await api("GET")
    assert str(raised.value) == "the file of tenants can't be used now; the server's log has more"
    assert str(api.file) in caplog.text


async def test_while_another_writes_the_client_may_try_again(api: Api) -> None:
    api.store._database._connection.execute("PRAGMA busy_timeout = 0")
    other = TenantStore(api.file)
    try:
        with other._database.transaction():
            text = await api.refuses(Unavailable, "POST", "", {"name": "a"})
    finally:
        other.close()
    assert text.startswith("the file of tenants can't be used now")


async def test_without_control_of_access_there_is_nothing_to_manage() -> None:
    table = RouteTable(TenantsApi(None, ROLES).routes())
    with pytest.raises(Unsupported, match="access is not controlled"):
        await table("/v2/tenants", HttpRequest("GET", {}, b"", OPEN))
