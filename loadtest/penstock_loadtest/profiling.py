"""Where the Python of a loaded server spends its time: py-spy on each of its processes at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from penstock_loadtest import cpu
from penstock_loadtest.cases import Case
from penstock_loadtest.contestants import only_model
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.h2load import H2load
from penstock_loadtest.load import Client
from penstock_loadtest.perf_analyzer import PerfAnalyzer
from penstock_loadtest.servers import RunningServer, Server, running

SAMPLES_PER_SECOND: Final = 200
WARM_UP_S: Final = 1.0
ATTACH_S: Final = 2.0
"""The load goes on for longer than the record, which takes a while to begin."""


@dataclass(frozen=True, slots=True)
class Record:
    """Samples of one process: collapsed stacks, which flame graph tools read."""

    process: str
    """`envoy-1234`."""
    file: Path
    stacks: Counter[tuple[str, ...]]
    """Outermost function first."""

    def table(self, top: int) -> Table:
        """The `top` functions by their own time, as shares of all samples."""
        total = self.stacks.total()
        own, inclusive = functions(self.stacks)
        table = Table(title=f"{self.process}: {total} samples, {self.file}")
        table.add_column("own", justify="right")
        table.add_column("with callees", justify="right")
        table.add_column("function")
        for name, count in own.most_common(top):
            table.add_row(f"{count / total:.1%}", f"{inclusive[name] / total:.1%}", name)
        return table


def profile_server(
    server: Server, repository: Path, peers: Path, case: Case, seconds: float, output: Path
) -> list[Record]:
    """Serve the case's model, load it, and record every process of the server that runs Python.

    Raises BenchmarkError where py-spy is missing or can't read any process.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penstock-profile-") as temporary:
        folder = Path(temporary)
        served = only_model(repository, case.model, folder / "repository")
        with running(server, served, folder / "server.log") as found:
            client = _client(case, found, folder, peers)
            client.warm_up(WARM_UP_S)
            recorders = [
                _start_recorder(pid, seconds, output) for pid in sorted(cpu.members(found.pid))
            ]
            client.run(seconds + ATTACH_S)
            return _finish(recorders)


def parse_collapsed(text: str) -> Counter[tuple[str, ...]]:
    """Read py-spy's raw format: `outer;inner 17` a line. Samples of threads outside Python have no frames: left out."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        if frames:
            stacks[tuple(frames.split(";"))] += int(count)
    return stacks


def functions(stacks: Counter[tuple[str, ...]]) -> tuple[Counter[str], Counter[str]]:
    """Samples of each function: its own, and with what it called. Recursion counts once a sample."""
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for frames, count in stacks.items():
        own[frames[-1]] += count
        for name in set(frames):
            inclusive[name] += count
    return own, inclusive


@dataclass(frozen=True, slots=True)
class _Recorder:
    process: str
    file: Path
    program: subprocess.Popen[bytes]


def _client(case: Case, server: RunningServer, folder: Path, peers: Path) -> Client:
    if case.client == "perf_analyzer":
        return PerfAnalyzer(case, server, folder, peers)
    return H2load(case, server, folder)


def _start_recorder(pid: int, seconds: float, output: Path) -> _Recorder:
    process = f"{cpu.name_of(pid)}-{pid}"
    file = output / f"{process}.txt"
    file.unlink(missing_ok=True)
    flags = ["--format", "raw", "--rate", str(SAMPLES_PER_SECOND), "--nonblocking"]
    times = ["--duration", str(round(seconds)), "--output", str(file), "--pid", str(pid)]
    program = subprocess.Popen(
        [_py_spy(), "record", *flags, *times],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return _Recorder(process, file, program)


def _finish(recorders: Sequence[_Recorder]) -> list[Record]:
    """py-spy leaves no file for a process without Python."""
    for recorder in recorders:
        recorder.program.wait()
    records = [
        Record(one.process, one.file, parse_collapsed(one.file.read_text()))
        for one in recorders
        if one.file.exists() and one.file.stat().st_size
    ]
    if not records:
        raise BenchmarkError(
            "py-spy could read none of the server's processes (is ptrace allowed?)"
        )
    return records


def _py_spy() -> str:
    beside_python = Path(sys.executable).parent / "py-spy"
    found = str(beside_python) if beside_python.is_file() else shutil.which("py-spy")
    if found is None:
        raise BenchmarkError("py-spy is missing: pip install py-spy")
    return found
