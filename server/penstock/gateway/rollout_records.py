"""What roll-outs do by themselves is told: in the server's log, the audit log, and the registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.audit.event import AuditEvent, Outcome
from penstock.audit.log import AuditLog
from penstock.errors import Unavailable
from penstock.gateway.rollout_versions import VersionSource
from penstock.rollouts.decisions import Advance, Decision, Hold, Promote, RollBack
from penstock.rollouts.state import Rollout

log = logging.getLogger(__name__)

TAG: Final = "penstock.rollout"
"""Of the candidate's version in the registry: JSON of what became of it."""
PROMOTED_BY: Final = "penstock.promoted.by"
PROMOTED_AT: Final = "penstock.promoted.at"
BY_HAND: Final = "hand"
"""Has promoted what somebody has asked for whom nobody has asked who he is."""


class RolloutTag(msgspec.Struct, frozen=True):
    """What the registry is told of a candidate."""

    status: str
    stable: int
    share: float
    """Percent."""
    at: str
    """As RFC 3339."""
    reason: str = ""


class RolloutRecords:
    """One a gateway."""

    def __init__(self, audit_log: AuditLog | None, source: VersionSource) -> None:
        self._audit_log = audit_log
        self._source = source

    def decided(self, rollout: Rollout, decision: Decision, at: str) -> None:
        """Something was decided, and holds already."""
        action, reason, details = _told(decision)
        self.tell(action, rollout, reason, details)
        self.tag(rollout, at, reason)

    def tell(
        self,
        action: str,
        rollout: Rollout,
        reason: str = "",
        details: Mapping[str, str] | None = None,
        outcome: Outcome = "done",
    ) -> None:
        """That something was done. It can't be taken back where that can't be recorded."""
        plan = rollout.plan
        log.info(
            "%s of model '%s', version %d beside %d, at %g %%%s",
            action,
            plan.model,
            plan.candidate,
            plan.stable,
            rollout.share / 100,
            f": {reason}" if reason else "",
        )
        if self._audit_log is None:
            return
        about = {
            "stable": str(plan.stable),
            "candidate": str(plan.candidate),
            "share": f"{rollout.share / 100:g}",
            **(details or {}),
        }
        try:
            self._audit_log.record(
                AuditEvent(
                    action=action, outcome=outcome, model=plan.model, reason=reason, details=about
                )
            )
        except Unavailable as error:
            log.warning("%s is %s, which can't be recorded: %s", action, outcome, error)

    def tag(self, rollout: Rollout, at: str, reason: str = "") -> None:
        """Have the registry know how the candidate fares."""
        plan = rollout.plan
        if not self._source.serves(plan.model):
            return
        told = RolloutTag(rollout.status.value, plan.stable, rollout.share / 100, at, reason[:400])
        tags = {TAG: msgspec.json.encode(told).decode()}
        self._source.tag(plan.model, plan.candidate, tags)

    def promoted(self, rollout: Rollout, by: str, at: str) -> None:
        """Have the registry know who promoted the candidate, and when. `by`: who is told of where nobody has done it by
        hand."""
        plan, decision = rollout.plan, rollout.decision
        if self._source.serves(plan.model):
            if isinstance(decision, Promote) and decision.by_hand:
                # what an earlier gateway had no time for is known by the roll-out's own memory alone
                by = rollout.promoted_by or BY_HAND
            tags = {PROMOTED_BY: by, PROMOTED_AT: at}
            self._source.tag(plan.model, plan.candidate, tags)


def _told(decision: Decision) -> tuple[str, str, dict[str, str]]:
    """Action, reason and details of a decision."""
    if isinstance(decision, RollBack):
        details = {"requests": str(decision.requests)}
        if decision.guard:
            details |= {"guard": decision.guard, "evidence": f"{decision.evidence:.3g}"}
        return "rollout.rollback", decision.reason, details
    if isinstance(decision, Promote):
        return "rollout.promote", "", {"by_hand": str(decision.by_hand).lower()}
    if isinstance(decision, Hold):
        return "rollout.wait", "all steps have gone well: somebody has to promote it", {}
    assert isinstance(decision, Advance)
    return "rollout.advance", "", {"step": str(decision.step + 1)}
