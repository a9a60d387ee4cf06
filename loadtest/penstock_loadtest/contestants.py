"""Who is compared: a server under a client's load, or a bare loop."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock_loadtest import bare_loop, cpu
from penstock_loadtest.cases import Case, ClientName
from penstock_loadtest.correctness import check_answer
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.h2load import H2load
from penstock_loadtest.load import Client, run_program
from penstock_loadtest.measurement import Measurement, summarise
from penstock_loadtest.perf_analyzer import PerfAnalyzer
from penstock_loadtest.server_stats import read_stats, settled_since
from penstock_loadtest.servers import RunningServer, Server, running

WARM_UP_S = 1.0


class Contestant(Protocol):
    """Something that can be measured under a case."""

    @property
    def name(self) -> str:
        """Shown in reports."""
        ...

    def measure(self, case: Case, seconds: float) -> Measurement:
        """One turn. Raises BenchmarkError where it can't be measured or answered wrongly."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A server: started for each turn with the case's model only, and stopped at its end."""

    server: Server
    repository: Path
    peers: Path
    machine_cores: int
    client: ClientName | None = None
    """Instead of each case's own client."""

    @property
    def name(self) -> str:
        """The server's."""
        return self.server.name

    def measure(self, case: Case, seconds: float) -> Measurement:
        """Start, check one answer, warm up, load, stop."""
        with tempfile.TemporaryDirectory(prefix="penstock-loadtest-") as temporary:
            folder = Path(temporary)
            repository = only_model(self.repository, case.model, folder / "repository")
            with running(self.server, repository, folder / "server.log") as server:
                check_answer(server, case)
                return self._load(server, case, seconds, folder)

    def _load(self, server: RunningServer, case: Case, seconds: float, folder: Path) -> Measurement:
        client = self._client(case, server, folder)
        client.warm_up(WARM_UP_S)
        stats, before = read_stats(server, case.model), cpu.read(server.pid)
        load = client.run(seconds)
        use = cpu.between(before, cpu.read(server.pid))
        counted = settled_since(stats, server, case.model, load.requests)
        return summarise(server.name, case.name, load, use, counted, self.machine_cores)

    def _client(self, case: Case, server: RunningServer, folder: Path) -> Client:
        if (self.client or case.client) == "perf_analyzer":
            return PerfAnalyzer(case, server, folder, self.peers)
        return H2load(case, server, folder)


@dataclass(frozen=True, slots=True)
class BareLoop:
    """The embedder's ONNX session in a loop, in a process of its own."""

    version_folder: Path
    threads: int
    mode: bare_loop.Mode

    @property
    def name(self) -> str:
        """`bare loop` or `bare onnx`."""
        return f"bare {self.mode}"

    def measure(self, case: Case, seconds: float) -> Measurement:
        """One run over batches of 32; it has no latency and no client."""
        words = [str(self.version_folder), str(self.threads), str(seconds), self.mode]
        module = [sys.executable, "-m", "penstock_loadtest.bare_loop"]
        done = run_program([*module, *words], seconds * 5 + 60)
        result = bare_loop.BareResult(**json.loads(done.output))
        return Measurement(
            contestant=self.name,
            case=case.name,
            requests=result.texts,
            per_second=result.texts / result.seconds,
            server_cpu_us=result.cpu_s / result.texts * 1e6,
            server_cores=result.cpu_s / result.seconds,
            mean_batch=float(bare_loop.BATCH),
            limit="machine",
        )


def only_model(repository: Path, model: str, target: Path) -> Path:
    """A repository at `target` that holds nothing but a copy of `model`."""
    source = repository / model
    if not source.is_dir():
        raise BenchmarkError(f"no model {model} in {repository}")
    shutil.copytree(source, target / model, ignore=shutil.ignore_patterns("__pycache__"))
    return target
