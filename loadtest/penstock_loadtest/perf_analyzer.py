"""NVIDIA's perf_analyzer: the client that users of Triton know. It costs several times h2load's CPU a request."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock_loadtest.cases import Case
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.load import Load, run_program
from penstock_loadtest.servers import RunningServer
from penstock_loadtest.texts import sample_texts

WINDOWS: Final = 3
"""perf_analyzer measures three windows at least, and reports all of them as one."""
NEVER_UNSTABLE_PERCENT: Final = 999
TEXTS: Final = 256
COUNT: Final = re.compile(r"^\s+Request count: (\d+)$", re.MULTILINE)
REQUIRED_COLUMNS: Final = ("Inferences/Second", "p50 latency", "p99 latency")


class PerfAnalyzer:
    """Runs peers/perf_analyzer.sh: blocking calls, one thread a request under way."""

    def __init__(self, case: Case, server: RunningServer, folder: Path, peers: Path) -> None:
        self._case = case
        self._csv = folder / "perf_analyzer.csv"
        self._command = _command(peers, case, server)
        if case.model == "embedder":
            data = folder / "texts.json"
            data.write_text(json.dumps(text_steps()))
            self._command += ["--input-data", str(data)]

    def warm_up(self, seconds: float) -> None:
        """A run whose figures are dropped."""
        self.run(seconds)

    def run(self, seconds: float) -> Load:
        """Three windows that take `seconds` together."""
        window_ms = max(100, round(seconds * 1000 / WINDOWS))
        flags = ["--measurement-interval", str(window_ms), "-f", str(self._csv)]
        done = run_program([*self._command, *flags], seconds * 10 + 60)
        row = parse_csv(self._csv.read_text())
        return Load(
            requests=parse_count(done.output),
            wall_s=done.wall_s,
            per_second=row["Inferences/Second"],
            median_us=row["p50 latency"],
            p99_us=row["p99 latency"],
            client_cpu_s=done.cpu_s,
            client_threads=self._case.concurrency,
        )


def text_steps() -> dict[str, list[dict[str, list[str]]]]:
    """perf_analyzer's input data: one sentence a request, in a circle."""
    return {"data": [{"TEXT": [text]} for text in sample_texts(TEXTS)]}


def parse_csv(text: str) -> Mapping[str, float]:
    """The columns of the one line that a single concurrency gives."""
    rows = list(csv.DictReader(text.splitlines()))
    if len(rows) != 1 or any(column not in rows[0] for column in REQUIRED_COLUMNS):
        raise BenchmarkError(f"perf_analyzer wrote no result:\n{text[:500]}")
    return {name: float(rows[0][name]) for name in REQUIRED_COLUMNS}


def parse_count(output: str) -> int:
    """How many requests perf_analyzer counted in its windows."""
    found = COUNT.search(output)
    if found is None:
        raise BenchmarkError(f"perf_analyzer printed no request count:\n{output[-500:]}")
    return int(found[1])


def _command(peers: Path, case: Case, server: RunningServer) -> list[str]:
    address = server.grpc_address if case.protocol == "grpc" else server.http_url.split("//")[1]
    flags = {
        "-m": case.model,
        "-u": address,
        "-i": case.protocol,
        "--concurrency-range": str(case.concurrency),
        "-s": str(NEVER_UNSTABLE_PERCENT),
        "-r": str(WINDOWS),
        "--percentile": "50",
    }
    words = [word for pair in flags.items() for word in pair]
    return [str(peers / "perf_analyzer.sh"), *words]
