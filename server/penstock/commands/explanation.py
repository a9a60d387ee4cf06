"""What a server says of a model's scheduling, typed: the answer of `GET /v2/models/NAME/explain`.

A part that a server leaves out, or has no value for, is None or empty.
"""

from __future__ import annotations

import msgspec


class LevelPolicy(msgspec.Struct, frozen=True):
    """What the queue policy of a level says."""

    level: str
    """Or "default": of those that have none of their own."""
    timeout_us: float | None = None
    """0: none."""
    timeout_action: str = ""
    allow_timeout_override: bool = False
    max_queue_requests: float | None = None
    """0: as many as the whole queue."""


class Policy(msgspec.Struct, frozen=True):
    """How batches are made, and what the queue may hold."""

    max_rows: float | None = None
    rows_cap: float | None = None
    """Rows of a batch at present."""
    delay_us: float | None = None
    """How long a batch waits for more, at present."""
    max_delay_us: float | None = None
    preferred_rows: list[int] = []
    max_queue_requests: float | None = None
    max_queue_bytes: float | None = None
    max_queue_us: float | None = None
    """Longest wait that a new request may have to expect; 0: any."""
    levels: list[LevelPolicy] = []


class Decision(msgspec.Struct, frozen=True):
    """One step of the SLO controller."""

    at_s_ago: float | None = None
    rows_cap: float | None = None
    delay_us: float | None = None
    measured_p99_ms: float | None = None
    reason: str = ""


class Slo(msgspec.Struct, frozen=True):
    """The controller: what it aims at, what it sees, and what it has decided."""

    p99_ms: float | None = None
    measured_p99_ms: float | None = None
    rows_cap: float | None = None
    delay_us: float | None = None
    headroom: float | None = None
    """The share of the objective that it plans with."""
    reason: str = ""
    history: list[Decision] = []


class CurvePoint(msgspec.Struct, frozen=True):
    """How long a batch of so many rows takes."""

    rows: int
    median_us: float | None = None
    upper_us: float | None = None
    samples: float | None = None


class TenantQueue(msgspec.Struct, frozen=True):
    """What waits of one tenant in one level."""

    tenant: str
    weight: float | None = None
    requests: float | None = None
    rows: float | None = None
    oldest_us: float | None = None


class Level(msgspec.Struct, frozen=True):
    """One priority level; 1 is the most urgent."""

    level: int
    late: bool = False
    """These have waited for too long, and run after the others of the level."""
    tenants: list[TenantQueue] = []


class Queue(msgspec.Struct, frozen=True):
    """What waits."""

    requests: float | None = None
    rows: float | None = None
    bytes: float | None = None
    drain_us: float | None = None
    levels: list[Level] = []


class InstanceState(msgspec.Struct, frozen=True):
    """One instance, and what it is doing."""

    name: str
    device: str = ""
    """`cpu`, or `cuda:N`."""
    state: str = ""
    running_rows: list[int] = []
    """Of each batch that it has, the one that runs first."""
    busy_us: float | None = None
    predicted_us: float | None = None
    """Until all of them should be done."""


class Stock(msgspec.Struct, frozen=True):
    """A resource of the rate limiter."""

    name: str
    device: int | None = None
    """None: there is one store of it for all devices."""
    held: float | None = None
    count: float | None = None


class Limits(msgspec.Struct, frozen=True):
    """What the instances of the model need to run."""

    resources: list[Stock] = []


class Quarantined(msgspec.Struct, frozen=True):
    """A request that kills workers, and is refused."""

    digest: str
    reason: str = ""
    seconds_left: float | None = None


class UnderWay(msgspec.Struct, frozen=True):
    """What an ensemble has begun and not answered."""

    requests: float | None = None
    bytes: float | None = None
    max_requests: float | None = None
    max_bytes: float | None = None


class StepState(msgspec.Struct, frozen=True):
    """One step of an ensemble."""

    step: int
    model: str
    version: str = ""
    """Of the model that runs it now."""
    ready: bool = False


class ResponseCache(msgspec.Struct, frozen=True):
    """What the model's cached answers take, and do."""

    budget_bytes: float | None = None
    """Of all models together."""
    used_bytes: float | None = None
    model_bytes: float | None = None
    entries: float | None = None
    hits: float | None = None
    misses: float | None = None
    coalesced: float | None = None
    """Of the hits, those that waited for a request like them."""
    evictions: float | None = None
    too_large: float | None = None
    runs: float | None = None
    """Requests under way that others may wait for."""
    waiting: float | None = None


class Explanation(msgspec.Struct, frozen=True):
    """All of it."""

    model: str
    version: str = ""
    policy: Policy | None = None
    slo: Slo | None = None
    service_curve: list[CurvePoint] = []
    queue: Queue | None = None
    refused: dict[str, int] = {}
    """Reason → requests, since the model was loaded."""
    instances: list[InstanceState] = []
    rate_limiter: Limits | None = None
    quarantine: list[Quarantined] = []
    problem: str = ""
    """Why an ensemble can't run."""
    under_way: UnderWay | None = None
    steps: list[StepState] = []
    response_cache: ResponseCache | None = None
