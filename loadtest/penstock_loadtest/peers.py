"""The benchmark of `peers`: one server against another, and the embedder against a bare loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock_loadtest.cases import EMBEDDER_CASE, Case, ClientName
from penstock_loadtest.compare import Comparison, compare, take_turns
from penstock_loadtest.contestants import BareLoop, Contestant, Served
from penstock_loadtest.measurement import Measurement
from penstock_loadtest.servers import Penstock, Server

Say = Callable[[str], None]


@dataclass(slots=True)
class PeersOutcome:
    """All that was found."""

    comparisons: list[Comparison] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Cases that could not be run, and why."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Two servers, and what they share."""

    subject: Server
    baseline: Server
    peers: Path
    """Folder of perf_analyzer.sh and of `repo/`, the models that both serve."""
    model_repo: Path
    """Repository that holds the embedder."""
    client: ClientName | None
    cores: int
    threads: int
    """Of the bare loop's ONNX session."""

    def run(self, cases: Sequence[Case], rounds: int, seconds: float, say: Say) -> PeersOutcome:
        """Run `cases` one after the other; in each, the contestants take turns."""
        outcome = PeersOutcome()
        for case in cases:
            contestants, reason = self._contestants(case)
            if reason:
                outcome.skipped.append(f"{case.name}: {reason}")
                continue

            def on_turn(turn: Measurement) -> None:
                outcome.measurements.append(turn)
                say(f"[dim]{turn.case} {turn.contestant}: {turn.per_second:,.0f} requests/s[/]")

            subject, *baselines = take_turns(case, contestants, rounds, seconds, on_turn)
            judged = case if self._is_goals_pair() else case.without_goals()
            outcome.comparisons += [compare(judged, subject, baseline) for baseline in baselines]
        return outcome

    def _is_goals_pair(self) -> bool:
        """The goals say what Penstock is to reach against another server, not any server against its equal."""
        return isinstance(self.subject, Penstock) and not isinstance(self.baseline, Penstock)

    def _contestants(self, case: Case) -> tuple[list[Contestant], str]:
        """Subject first; none and the reason where the case can't be run."""
        if case == EMBEDDER_CASE:
            return self._embedder_contestants()
        pair: list[Contestant] = [
            self._served(self.subject, self.peers / "repo"),
            self._served(self.baseline, self.peers / "repo"),
        ]
        return pair, ""

    def _embedder_contestants(self) -> tuple[list[Contestant], str]:
        version = self.model_repo / "embedder" / "1"
        if not isinstance(self.subject, Penstock):
            return [], "the peers' Triton has no ONNX Runtime backend"
        if not (version / "model.onnx").is_file():
            script = version.parent / "export.py"
            return [], f"{version / 'model.onnx'} is not made yet, run: python {script}"
        bare = [BareLoop(version, self.threads, mode) for mode in ("loop", "onnx")]
        return [self._served(self.subject, self.model_repo), *bare], ""

    def _served(self, server: Server, repository: Path) -> Served:
        return Served(server, repository, self.peers, self.cores, self.client)
