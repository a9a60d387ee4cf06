"""What a roll-out decides, and what it tells of itself."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How a roll-out is."""

    RUNNING = "running"
    PAUSED = "paused"
    """It stays at its step; guards go on."""
    WAITING = "waiting"
    """All steps have gone well; somebody has to promote the candidate."""
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def over(self) -> bool:
        """Nothing more will happen."""
        return self in (Status.PROMOTED, Status.ROLLED_BACK, Status.ABORTED)


class Advance(msgspec.Struct, frozen=True, tag=True):
    """The next step has begun."""

    step: int
    share: int
    """In hundredths of a percent."""


class Hold(msgspec.Struct, frozen=True, tag=True):
    """All steps have gone well, and the plan says not to promote."""


class RollBack(msgspec.Struct, frozen=True, tag=True):
    """The candidate gets no more requests, from now on."""

    guard: str
    """`errors`, `latency`, `drift`, `mismatches`, `non_finite` or `failing`; empty: somebody has aborted it."""
    reason: str
    """A sentence for a person."""
    evidence: float = 0.0
    """How many times likelier what was seen is with a candidate that is worse: at least the guard's bound."""
    requests: int = 0
    """Requests that the candidate has had."""


class Promote(msgspec.Struct, frozen=True, tag=True):
    """The candidate is the stable version from now on."""

    by_hand: bool = False


Decision = Advance | Hold | RollBack | Promote


class Event(msgspec.Struct, frozen=True):
    """Something that has happened to a roll-out."""

    after_s: float
    """Since it began; the time that its server was down does not count."""
    what: str
    """`started`, `advanced`, `paused`, `resumed`, `waiting`, `promoted`, `rolled_back`, `aborted`, `restored`."""
    share: int
    """The candidate's from then on, in hundredths of a percent."""
    text: str = ""


class GuardReport(msgspec.Struct, frozen=True):
    """What one guard has found."""

    name: str
    evidence: float
    """Against the candidate: 1 is none."""
    bound: float
    """It rolls back when the evidence reaches this."""
    windows: int
    """How many times the versions were compared."""
    stable: float | None
    """What it has measured for the stable version: a share; None: nothing yet, or nothing to compare with."""
    candidate: float | None
    text: str
    """The same for a person."""


class RolloutReport(msgspec.Struct, frozen=True):
    """What a roll-out tells of itself; JSON by `msgspec.json.encode`."""

    model: str
    stable: int
    candidate: int
    mode: str
    status: Status
    step: int
    """From 0."""
    steps: tuple[float, ...]
    share: int
    """Of the candidate now, in hundredths of a percent."""
    after_s: float
    """Since the roll-out began."""
    step_left_s: float
    """Until the step has lasted long enough."""
    step_left_requests: int
    """Until the candidate has answered enough in it."""
    step_left_windows: int
    """Until the versions were compared often enough in it."""
    stable_requests: int
    candidate_requests: int
    stable_errors: int
    candidate_errors: int
    candidate_non_finite: int
    uncounted: int
    """Bad answers of the candidate that were not counted because requests of the same id gave enough of them."""
    false_alarm: float
    guards: tuple[GuardReport, ...]
    events: tuple[Event, ...]
    decision: Decision | None
    """How it ended."""
