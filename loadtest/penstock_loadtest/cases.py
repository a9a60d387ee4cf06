"""What is measured: a model, the way to it, and how many requests are under way at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

from penstock_loadtest.errors import BenchmarkError

Protocol = Literal["grpc", "http"]
ClientName = Literal["h2load", "perf_analyzer"]


@dataclass(frozen=True, slots=True)
class Case:
    """One load on one model."""

    model: str
    protocol: Protocol
    concurrency: int
    """Requests under way at once: a closed loop."""
    client: ClientName = "h2load"
    client_threads: int = 1
    """For h2load. Large bodies need two, or the client's one thread is what is measured."""
    throughput_goal: float | None = None
    """Ratio to the baseline that is to be reached or passed."""
    latency_goal: float | None = None
    """Ratio of the median latencies that is not to be passed."""

    @property
    def name(self) -> str:
        """`identity-grpc-64`."""
        return f"{self.model}-{self.protocol}-{self.concurrency}"

    @property
    def connections(self) -> int:
        """HTTP/1.1 carries one request a connection; over HTTP/2 at least four share one, on eight at most."""
        if self.protocol == "http":
            return self.concurrency
        return min(8, max(1, self.concurrency // 4))

    def without_goals(self) -> Case:
        """The same load with nothing to reach."""
        return replace(self, throughput_goal=None, latency_goal=None)


PEER_CASES: Final = (
    Case("identity", "grpc", 1, latency_goal=1.0),
    Case("identity", "grpc", 16),
    Case("identity", "grpc", 64, throughput_goal=2.0),
    Case("identity", "grpc", 128, throughput_goal=2.0),
    Case("image", "grpc", 16, client_threads=2, throughput_goal=1.0),
    Case("identity", "http", 64, throughput_goal=2.0),
    Case("image", "http", 16, client_threads=2, throughput_goal=1.0),
)
"""Served by both servers from the peers' repository."""

EMBEDDER_CASE: Final = Case("embedder", "grpc", 32, "perf_analyzer", throughput_goal=0.95)
"""Served by Penstock, compared with a bare loop over the same ONNX session."""


def select(patterns: Sequence[str]) -> list[Case]:
    """The cases whose name matches one of the shell `patterns`; all of them without patterns.

    Raises BenchmarkError where a pattern matches none.
    """
    cases = [*PEER_CASES, EMBEDDER_CASE]
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            names = ", ".join(case.name for case in cases)
            raise BenchmarkError(f"--case {pattern}: no such case; there are {names}")
    if not patterns:
        return cases
    return [case for case in cases if any(fnmatchcase(case.name, p) for p in patterns)]
