"""What a roll-out sees of its requests: who judges it, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from penstock.errors import Cancelled, Forbidden, InvalidRequest, PenstockError
from penstock.rollouts.observation import CLIENT, Observation, ShadowPair
from penstock.types import OutputTensor
from penstock.workers.request import PendingRequest, RequestTrace, Timed

NOT_OBSERVED: Final = (Cancelled,)
"""Ends that tell nothing of a version."""


def kind_of(error: PenstockError | None) -> str:
    """An observation's `error_kind`."""
    if error is None:
        return ""
    return CLIENT if isinstance(error, InvalidRequest | Forbidden) else type(error).__name__


class Judge(Protocol):
    """Hears what becomes of requests. Must not raise, and changes nothing before the next turn of the loop."""

    def observe(self, observation: Observation) -> None:
        """Of a request that was split."""
        ...

    def pair(self, pair: ShadowPair) -> None:
        """Of a request that both versions have run."""
        ...


class Run:
    """A trace that is there to tell how long the request was run: not waited for, and not found in a cache."""

    __slots__ = ("_trace", "took_us")

    def __init__(self, trace: RequestTrace | None) -> None:
        """`trace`: of the request itself."""
        self._trace = trace
        self.took_us = 0.0
        """Until its answer, or its first response; 0: it was not run."""

    def computed(
        self,
        started_ns: int,
        ended_ns: int,
        times: Timed,
        outputs: Sequence[OutputTensor] | PenstockError,
    ) -> None:
        """As RequestTrace."""
        # the worker's own measure: its batch may have waited there for the one before it
        took_ns = times.input_ns + times.infer_ns + times.output_ns or ended_ns - started_ns
        self.took_us = self.took_us or took_ns / 1000
        if self._trace is not None:
            self._trace.computed(started_ns, ended_ns, times, outputs)

    def nested(self, request: PendingRequest, model: str, version: int) -> None:
        """As RequestTrace."""
        if self._trace is not None:
            self._trace.nested(request, model, version)


class VersionCounts(msgspec.Struct):
    """Of one version."""

    requests: int = 0
    """That it has answered, or should have, and that were looked at."""
    errors: int = 0
    non_finite: int = 0

    def count(self, observation: Observation) -> None:
        """One more."""
        self.requests += 1
        self.errors += not observation.ok
        self.non_finite += observation.non_finite


class RolloutCounts(msgspec.Struct):
    """Of one roll-out."""

    stable: VersionCounts = msgspec.field(default_factory=VersionCounts)
    candidate: VersionCounts = msgspec.field(default_factory=VersionCounts)
    """In shadow mode of copies, which are run for nobody."""
    passed: int = 0
    """Of the stable version, beside those: nobody has looked at them."""
    fallbacks: int = 0
    """Requests that the candidate failed, and that were run on the stable version."""
    seen_failures: int = 0
    """Failures of the candidate that clients have seen."""
    dropped_copies: int = 0
    mismatches: int = 0
    """Copies that were answered otherwise."""
