"""Checks of models in the audit log."""

from __future__ import annotations

import asyncio

import pytest

from penstock.audit.event import AuditEvent
from penstock.errors import Unavailable
from penstock.gateway.artifact_audit import event_of, recorded_checks
from penstock.trust.artifact import Judgement

VERIFIED = Judgement("m", 3, "verified", signer="CN=release", serial=7, digest="ab12")
REFUSED = Judgement("m", 3, "WrongKey", "WrongKey: 'x' has signed it")


class FakeLog:
    """An audit log that remembers, or that can't be written."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.durable_events: list[AuditEvent] = []
        self.fails = False

    def record(self, event: AuditEvent) -> AuditEvent:
        if self.fails:
            raise Unavailable("the audit log can't be written")
        self.events.append(event)
        return event

    async def durable(self, event: AuditEvent) -> None:
        await asyncio.sleep(0)
        self.durable_events.append(event)


def test_what_is_recorded() -> None:
    verified, refused = event_of(VERIFIED), event_of(REFUSED)
    assert (verified.action, verified.outcome, verified.model) == ("artifact.verify", "done", "m")
    assert verified.details == {
        "version": "3",
        "outcome": "verified",
        "signer": "CN=release",
        "serial": "7",
        "manifest_sha256": "ab12",
    }
    assert (refused.outcome, refused.reason) == ("refused", "WrongKey: 'x' has signed it")
    assert refused.details == {"version": "3", "outcome": "WrongKey"}


async def test_it_is_on_the_disk_before_the_model_is_loaded() -> None:
    log = FakeLog()
    observe = recorded_checks(log, asyncio.get_running_loop())  # type: ignore[arg-type]
    await asyncio.to_thread(observe, VERIFIED)
    assert log.durable_events == [event_of(VERIFIED)]


async def test_what_can_not_be_recorded_is_not_loaded() -> None:
    log = FakeLog()
    log.fails = True
    observe = recorded_checks(log, asyncio.get_running_loop())  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await asyncio.to_thread(observe, VERIFIED)
