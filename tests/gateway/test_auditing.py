"""What the gateway records, without a server: actions before and after, refusals, and which routes have actions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from audit_logs import settings
from every_rule import every_route, every_rpc
from penstock.access.principal import Principal
from penstock.access.session import OPEN
from penstock.audit.lines import Record
from penstock.audit.log import AuditLog
from penstock.audit.reading import Filter, records
from penstock.errors import (
    Forbidden,
    InvalidRequest,
    LoadFailed,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from penstock.gateway.audit_api import filter_of
from penstock.gateway.auditing import (
    CALL,
    RPC_ACTIONS,
    Auditing,
    changes_something,
    details_of_http,
    details_of_rpc,
)
from penstock.protobuf import message_class
from penstock.verbs import Verb
from penstock.workers.supervisor_messages import TlsState

PRINCIPAL = Principal("key:psk_a", "team", ("admin",), "api_key")


@pytest.fixture
def auditing(tmp_path: Path) -> Iterator[Auditing]:
    """With a log of its own."""
    log = AuditLog(settings(tmp_path / "audit"))
    try:
        yield Auditing(log)
    finally:
        log.close()


def written(auditing: Auditing) -> list[Record]:
    """All events, once they are on the disk."""
    auditing.log.close()
    folder = auditing.log.settings.folder
    assert folder is not None
    return [record for record in records(folder, Filter()) if record.kind == "event"]


def test_every_route_and_rpc_that_does_something_to_the_server_is_recorded() -> None:
    """Tenants' changes are recorded by who makes them, with what they were."""
    does = {Verb.LOAD, Verb.ROLLOUT, Verb.CONFIGURE}
    for route in every_route():
        rule = route.description.rule
        changes = route.method != "GET" and rule.verb in does
        assert bool(route.description.action) == changes, route.template
    rpcs = {path.rpartition("/")[2] for path, rule in every_rpc().items() if rule.verb in does}
    assert rpcs == set(RPC_ACTIONS)


async def test_an_action_is_recorded_before_and_after(auditing: Auditing) -> None:
    async with auditing.action("model.load", OPEN, "m", {"method": "POST"}):
        folder = auditing.log.settings.folder
        assert folder is not None
        (begun,) = records(folder, Filter(action="model"))
        assert begun.outcome == "allowed"
    with pytest.raises(LoadFailed):
        async with auditing.action("model.load", OPEN, "n"):
            raise LoadFailed("the file PLANTED is wrong")
    async with auditing.action("model.load", OPEN, "o") as about:
        about.problem = "status 409"
    found = written(auditing)
    assert [(r.model, r.outcome, r.reason) for r in found] == [
        ("m", "allowed", ""),
        ("m", "done", ""),
        ("n", "allowed", ""),
        ("n", "failed", "LoadFailed"),
        ("o", "allowed", ""),
        ("o", "failed", "status 409"),
    ]
    ids = [record.request_id for record in found]
    assert ids[0::2] == ids[1::2] and len(set(ids)) == 3


async def test_one_that_is_cancelled_has_failed(auditing: Auditing) -> None:
    begun = asyncio.Event()

    async def act() -> None:
        async with auditing.action("model.load", OPEN, "m"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(act())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(r.outcome, r.reason) for r in written(auditing)] == [
        ("allowed", ""),
        ("failed", "Cancelled"),
    ]


async def test_what_cant_be_recorded_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("no folder")
    log = AuditLog(settings(tmp_path / "audit"))
    with pytest.raises(Unavailable):
        async with Auditing(log).action("model.load", OPEN, "m"):
            pytest.fail("it is done all the same")
    log.close()


async def test_unless_the_policy_is_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("no folder")
    log = AuditLog(settings(tmp_path / "audit", when_it_cant_be_written="go_on"))
    done = False
    async with Auditing(log).action("model.load", OPEN, "m"):
        done = True
    assert done
    log.close()


def test_refusals(auditing: Auditing) -> None:
    scope = {
        "client": ("10.0.0.9", 4242),
        "headers": [(b"x-request-id", b"r-1")],
        "method": "POST",
        "path": "/v2/models/m/infer",
        "query_string": b"key=planted",
    }
    token = CALL.set(scope)
    try:
        auditing.refused(None, Unauthenticated("who?"), "infer", "m")
    finally:
        CALL.reset(token)
    auditing.refused(PRINCIPAL, Forbidden("not allowed: load of model 'm'"), "load", "m")
    auditing.refused(PRINCIPAL, QuotaExceeded("too much"), "infer", "m")
    unknown, forbidden, quota = written(auditing)
    assert (unknown.action, unknown.client, unknown.request_id) == (
        "authenticate",
        "10.0.0.9:4242",
        "r-1",
    )
    assert unknown.details == {
        "verb": "infer",
        "protocol": "HTTP",
        "method": "POST",
        "path": "/v2/models/m/infer",
    }
    assert (forbidden.action, forbidden.principal, forbidden.tenant) == (
        "authorize",
        "key:psk_a",
        "team",
    )
    assert (quota.action, quota.details, quota.client) == ("quota", {"verb": "infer"}, "")


def test_refusals_need_not_be_recorded(tmp_path: Path) -> None:
    auditing = Auditing(AuditLog(settings(tmp_path / "audit", refusals=False)))
    auditing.refused(None, Unauthenticated("who?"), "infer", "m")
    auditing.log.close()
    assert not (tmp_path / "audit").exists()


def test_certificates(auditing: Auditing) -> None:
    states = [
        TlsState(1_800_000_000.0, 0.0, *counts) for counts in ((0, 0), (1, 0), (1, 2), (1, 2))
    ]
    for before, now in pairwise(states):
        auditing.certificates(before, now)
    done, refused = written(auditing)
    assert (done.action, done.outcome) == ("tls.rotate", "done")
    assert done.details["certificate_until"].startswith("2027-01-15T08:00:00")
    assert (refused.outcome, refused.details["count"]) == ("refused", "2")


async def test_requests_are_told_by_digests_and_by_settings_that_there_are() -> None:
    body = b'{"log_verbose_level": 2, "PLANTED": 1, "log_format": "PLANTED"}'
    details = await details_of_http("POST", body)
    assert details["settings"] == "log_format,log_verbose_level"
    assert "PLANTED" not in str(details)
    for odd in (b"", b"[1]", b"{", b"\xff" * 100_000):
        assert "settings" not in await details_of_http("POST", odd)
    request: Any = message_class("inference.LogSettingsRequest")()
    assert not changes_something(request)
    request.settings["log_info"].bool_param = True
    assert changes_something(request)
    told = await details_of_rpc("LogSettings", request, request.SerializeToString())
    assert told["settings"] == "log_info" and told["protocol"] == "GRPC"
    assert changes_something(message_class("inference.RepositoryModelLoadRequest")())


def test_the_query() -> None:
    wanted = filter_of(b"tenant=a%20b&since=12&limit=3&action=model")
    assert (wanted.tenant, wanted.since_seq, wanted.limit, wanted.action) == ("a b", 12, 3, "model")
    assert filter_of(b"since=2026-11-28").since_time.startswith("2026-11-28T00:00:00.000")
    assert filter_of(b"").limit == 100
    with pytest.raises(InvalidRequest, match=r"^outcome is 'foo', expected one of allowed, "):
        filter_of(b"outcome=foo")
