"""One process of the benchmark, started by torchrun: `FOLDER ROUNDS STEPS`, or `meet`, or `plain`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from penstock_training.benchmark_loops import BATCH_OF_ONE_PROCESS, Contest
from penstock_training.config import RunSettings
from penstock_training.world import World, join


def contest(world: World, folder: Path, rounds: int, steps: int) -> None:
    """Both loops in turns; who begins changes."""
    figures: dict[str, list[float]] = {}
    for number in range(-1, rounds):
        # the first round is to warm up
        names = ["ours", "plain"] if number % 2 else ["plain", "ours"]
        for name in names:
            each = Contest(world, steps if number >= 0 else 20, folder)
            run = each.ours() if name == "ours" else each.plain()
            took = world.all_of(run())
            if number >= 0:
                samples = steps * BATCH_OF_ONE_PROCESS * world.size
                slowest = max(clocks.wall_s for clocks in took)
                figures.setdefault(name, []).append(samples / slowest)
                cpu_s = sum(clocks.cpu_s for clocks in took)
                figures.setdefault(f"{name} by CPU", []).append(samples / cpu_s)
    if world.is_first:
        (folder / "figures.json").write_text(json.dumps(figures))


def main(arguments: list[str]) -> None:
    """Does it, and ends as `process.py` does."""
    world = join(RunSettings(folder=Path(), device="cpu", threads=1))
    if arguments == ["meet"]:
        world.all_of(None)
    elif arguments == ["plain"]:
        Contest(world, 1, Path()).plain()()
    else:
        folder, rounds, steps = arguments
        contest(world, Path(folder), int(rounds), int(steps))


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
