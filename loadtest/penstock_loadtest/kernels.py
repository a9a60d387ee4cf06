"""The kernels' CPU twins against what they replace, in one process: ratios, and bandwidth as a share of a copy's.

With one thread it is that thread's CPU time which counts, so that what else the machine does matters little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from penstock_kernels.cpu.runner import Cpu
from penstock_loadtest import kernel_cases_images, kernel_cases_rows
from penstock_loadtest.kernel_case import KernelCase
from penstock_loadtest.marked import fill, table

CASES: Final[tuple[KernelCase, ...]] = (*kernel_cases_images.CASES, *kernel_cases_rows.CASES)
MARK: Final = "kernels"
HEADS: Final = ("operation", "size", "µs", "times as fast", "share of a copy's bandwidth")
TURN_S: Final = 0.004
"""Short calls are repeated for about so long within a turn."""

Call = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class KernelResult:
    """Medians of one case, in seconds a call."""

    case: KernelCase
    twin_s: float
    replaced_s: float
    copy_s: float
    """To copy half of the bytes touched, which reads and writes as many as the case does."""
    ratio: float
    """Median of the turns' ratios, for the neighbours of a turn have the same machine."""

    @property
    def row(self) -> tuple[str, ...]:
        """As the table has it."""
        share = self.copy_s / self.twin_s
        return (
            self.case.name,
            self.case.size,
            f"{self.twin_s * 1e6:,.0f}",
            f"{self.ratio:.1f}",
            f"{share:.0%}",
        )


def measure(
    cases: Sequence[KernelCase], rounds: int, threads: int, tell: Callable[[str], None]
) -> list[KernelResult]:
    """All cases, one after the other; what is compared takes turns."""
    cpu = Cpu(threads)
    try:
        results = []
        for case in cases:
            results.append(_measure(case, cpu, rounds))
            tell(" | ".join(results[-1].row))
        return results
    finally:
        cpu.close()


def table_of(results: Sequence[KernelResult]) -> str:
    """In Markdown."""
    return table(HEADS, [result.row for result in results])


def publish(results: Sequence[KernelResult], page: Path) -> None:
    """Fill in the page's table."""
    page.write_text(fill(page.read_text(), MARK, table_of(results)))


def _measure(case: KernelCase, cpu: Cpu, rounds: int) -> KernelResult:
    twin, replaced = case.make(np.random.default_rng(1))
    source = np.ones(max(case.touched_bytes // 2, 1), np.uint8)
    target = np.zeros_like(source)
    calls: tuple[Call, ...] = (
        lambda: twin(cpu),
        replaced,
        lambda: np.copyto(target, source),
    )
    clock = time.thread_time if cpu.threads == 1 else time.perf_counter
    repeats = [_repeats(call, clock) for call in calls]
    turns = [
        [_seconds(call, count, clock) for call, count in zip(calls, repeats, strict=True)]
        for _ in range(rounds)
    ]
    twin_s, replaced_s, copy_s = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    return KernelResult(case, twin_s, replaced_s, copy_s, ratio)


def _repeats(call: Call, clock: Clock) -> int:
    # compiles
    call()
    return max(1, int(TURN_S / max(_seconds(call, 3, clock), 1e-9)))


def _seconds(call: Call, count: int, clock: Clock) -> float:
    started = clock()
    for _ in range(count):
        call()
    return (clock() - started) / count
