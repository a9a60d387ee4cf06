"""`python -m penstock_training.benchmark`: samples/s of the loop against plain PyTorch DDP, and what a start costs.

Both loops run in the same processes, in turns, so that what else the machine does hits both. The spread of the rounds
says how noisy it was.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from penstock.cores import available_cores
from penstock.errors import ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)

ONE_STEP = """\
[recipe]
name = "penstock_training.benchmark_loops:DigitsLike"
[run]
folder = "run"
[training]
epochs = 1
batch_size = 64
"""


@app.command("run")
def run(
    processes: Annotated[str, typer.Option(help="How many, separated by commas.")] = "1,2",
    rounds: Annotated[int, typer.Option(help="Turns of each loop.")] = 9,
    steps: Annotated[int, typer.Option(help="Optimizer steps of one turn.")] = 400,
    starts: Annotated[int, typer.Option(help="Starts that are timed; 0: none.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
) -> None:
    """Measure samples/s and starts, and show them as tables."""
    counts = [int(count) for count in processes.split(",")]
    console.print(f"{available_cores()} cores, load {os.getloadavg()[0]:.1f} before")
    loops = {count: measure_loops(count, rounds, steps) for count in counts}
    show_loops(loops)
    timed = {count: measure_starts(count, starts) for count in counts} if starts else {}
    if timed:
        show_starts(timed)
    console.print(f"load {os.getloadavg()[0]:.1f} after")
    if output is not None:
        output.write_text(json.dumps({"loops": loops, "starts": timed}, indent=1))


def measure_loops(processes: int, rounds: int, steps: int) -> Mapping[str, Sequence[float]]:
    """Samples/s of each round, by loop."""
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-") as folder:
        worker = ["-m", "penstock_training.benchmark_worker", folder, str(rounds), str(steps)]
        _torchrun(processes, worker)
        found: Mapping[str, Sequence[float]] = json.loads(
            (Path(folder) / "figures.json").read_text()
        )
        return found


def measure_starts(processes: int, starts: int) -> Mapping[str, Sequence[float]]:
    """Seconds of each start, by what was started."""
    found: dict[str, list[float]] = {}
    for _ in range(starts):
        for name, start in _starts(processes).items():
            began = time.perf_counter()
            start()
            found.setdefault(name, []).append(time.perf_counter() - began)
    return found


def _starts(processes: int) -> Mapping[str, Callable[[], Any]]:
    worker = "penstock_training.benchmark_worker"
    return {
        "python, import torch": lambda: _python("-c", "import torch"),
        "python, import penstock_training.rank": lambda: _python(
            "-c", "import penstock_training.rank"
        ),
        "torchrun, processes that meet": lambda: _torchrun(processes, ["-m", worker, "meet"]),
        "torchrun, one step of plain DDP": lambda: _torchrun(processes, ["-m", worker, "plain"]),
        "penstock-train, one step and a checkpoint": lambda: _one_step(processes),
    }


def _one_step(processes: int) -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-") as folder:
        config = Path(folder) / "one.toml"
        config.write_text(ONE_STEP)
        batch = f"training.batch_size={64 * processes}"
        _python(
            "-m",
            "penstock_training.cli",
            str(config),
            "--processes",
            str(processes),
            "--set",
            batch,
        )


def _torchrun(processes: int, arguments: Sequence[str]) -> None:
    _python(
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        *arguments,
    )


def _python(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")


def show_loops(loops: Mapping[int, Mapping[str, Sequence[float]]]) -> None:
    """Medians, and of the ratios also how far the rounds lie apart. Beside the time by the clock the CPU's: what else
    the machine does hits that one less."""
    table = Table(
        "processes", "plain DDP, samples/s", "penstock, samples/s", "ratio", "ratio by CPU time"
    )
    for processes, found in loops.items():
        table.add_row(
            str(processes),
            f"{statistics.median(found['plain']):,.0f}",
            f"{statistics.median(found['ours']):,.0f}",
            _ratio(found["ours"], found["plain"]),
            _ratio(found["ours by CPU"], found["plain by CPU"]),
        )
    console.print(table)


def _ratio(ours: Sequence[float], plain: Sequence[float]) -> str:
    ratios = sorted(mine / theirs for mine, theirs in zip(ours, plain, strict=True))
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.2f} - {ratios[-1]:.2f})"


def show_starts(timed: Mapping[int, Mapping[str, Sequence[float]]]) -> None:
    """Medians, in seconds."""
    table = Table("start, seconds", *(f"{count} processes" for count in timed))
    for name in next(iter(timed.values())):
        table.add_row(name, *(f"{statistics.median(found[name]):.2f}" for found in timed.values()))
    console.print(table)


if __name__ == "__main__":
    app()
