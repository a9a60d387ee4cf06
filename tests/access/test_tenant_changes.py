"""Changes are told of before they are made, and how they ended."""

from __future__ import annotations

import pytest

from penstock.access.tenant_changes import ChangeTrace, TenantChange
from penstock.errors import NotFound, Unavailable


def test_what_can_not_be_told_of_is_not_done() -> None:
    def full(change: TenantChange) -> None:
        raise Unavailable("no room")

    with pytest.raises(Unavailable, match="no room"), ChangeTrace("me", full).of("create", "a"):
        pytest.fail("it was done")


def test_details_that_are_empty_are_left_out() -> None:
    told: list[TenantChange] = []
    with ChangeTrace("me", told.append).of("key.create", "a", roles="user", label=""):
        assert [change.outcome for change in told] == ["allowed"]
    assert [change.outcome for change in told] == ["allowed", "done"]
    assert told[0].details == {"roles": "user"}
    assert (told[0].action, told[0].principal, told[0].tenant) == ("tenants.key.create", "me", "a")


def test_what_is_done_stays_done_when_the_log_breaks_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[TenantChange] = []

    def breaks(change: TenantChange) -> None:
        if told:
            raise Unavailable("no room")
        told.append(change)

    with ChangeTrace("me", breaks).of("create", "a"):
        pass
    told.clear()
    with pytest.raises(NotFound), ChangeTrace("me", breaks).of("delete", "a"):
        raise NotFound("no tenant")
    assert caplog.messages == [
        "tenants.create of tenant 'a' is done, which could not be recorded: no room",
        "tenants.delete of tenant 'a' is failed, which could not be recorded: no room",
    ]
