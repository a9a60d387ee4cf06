"""What the gateway tells of each request that a roll-out has split or copied."""

from __future__ import annotations

from typing import Final

import msgspec

CLIENT: Final = "client"
"""`error_kind` of what the client got wrong."""


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What became of one request of one version. Only of requests that were split: none that named its version, and
    none that ran on the stable version because the candidate had failed it. A request that its client cancelled tells
    nothing, and is not observed."""

    version: int
    latency_us: float
    """Of the version's own work, from when its batch began to run to its answer. With the wait in the queue, versions
    are compared by their load too: a model that waits to fill its batches looks slower at 1 % of the traffic. 0: not
    known."""
    ok: bool = True
    """False: it got an error, or no answer in time."""
    error_kind: str = ""
    """What kind of error, in one word. CLIENT is compared as all others (a candidate may refuse what the stable version
    takes), but does not count as a sign that the candidate is broken."""
    stable_failed: bool = False
    """The candidate failed, and so did the stable version, which the request was run on again (`fallback`): an outage
    of both. Compared as all others, but no sign that the candidate is broken. The second run is not observed besides.
    """
    non_finite: bool = False
    """An output holds NaN or infinity."""
    summary: float | int | None = None
    """A number that says what the answer is, for the guard of drift: an int where it is one of some classes (the
    likeliest), a float where it is a quantity (the outputs' mean). Always of one kind. None: nothing to say."""
    unit: int = 0
    """What was split by: `unit_of(...)`; 0: this request was drawn by itself."""


class ShadowPair(msgspec.Struct, frozen=True, gc=False):
    """One request that both versions have run. Neither is observed besides."""

    stable: Observation
    candidate: Observation
    mismatch: bool | None = None
    """The outputs differ beyond the tolerance; None: they were not compared, as where one has failed."""
