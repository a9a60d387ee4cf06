"""A roll-out as clients see it: what its judgement tells of it, and what the gateway has counted."""

from __future__ import annotations

from penstock.gateway.rollout_sight import RolloutCounts
from penstock.rollouts.decisions import RolloutReport
from penstock.rollouts.plan import RolloutPlan


class RolloutView(RolloutReport, frozen=True, kw_only=True):
    """With what is not the judgement's to know. JSON by `msgspec.json.encode`."""

    counts: RolloutCounts
    plan: RolloutPlan
    by: str = ""
    """Who began it: a principal, or an alias of the registry."""
    started_at: str = ""
    """As RFC 3339."""
    ended_at: str = ""
    """Empty: it goes on, or what was decided is not done yet."""
    problem: str = ""
    """What is in the way of going on; empty: nothing."""
