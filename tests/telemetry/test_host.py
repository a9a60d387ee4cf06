"""CPU and memory from a /proc that the test writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.telemetry.host import HostReader

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path


def tick(proc: Path, user: int, idle: int, iowait: int) -> None:
    """`guest` time, the ninth field, is in `user` already."""
    times = f"cpu  {user} 0 0 {idle} {iowait} 0 0 0 {user} 0"
    (proc / "stat").write_text(f"{times}\ncpu0 1 1 1 1 1 1 1 1 1 1\n")


def utilization(reader: HostReader) -> float:
    usage = reader.read()
    assert usage is not None
    return usage.cpu_utilization


def test_utilization_is_that_since_the_last_reading(proc: Path) -> None:
    reader = HostReader(proc)
    tick(proc, user=50, idle=40, iowait=10)
    assert utilization(reader) == 0.5
    tick(proc, user=80, idle=45, iowait=15)
    assert utilization(reader) == 0.75


def test_two_readings_in_one_tick_say_the_same(proc: Path) -> None:
    reader = HostReader(proc)
    tick(proc, user=50, idle=40, iowait=10)
    assert utilization(reader) == utilization(reader) == 0.5


def test_iowait_that_runs_backwards_stays_in_range(proc: Path) -> None:
    reader = HostReader(proc)
    tick(proc, user=50, idle=40, iowait=10)
    assert utilization(reader) == 0.5
    tick(proc, user=60, idle=40, iowait=5)
    assert utilization(reader) == 1.0


def test_memory_in_use_is_what_is_not_available(proc: Path) -> None:
    tick(proc, user=1, idle=1, iowait=0)
    usage = HostReader(proc).read()

    assert usage is not None
    assert (usage.memory_total_bytes, usage.memory_used_bytes) == (1_024_000, 614_400)


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert HostReader(tmp_path).read() is None


def test_what_was_read_lately_is_not_read_again(proc: Path) -> None:
    tick(proc, user=50, idle=40, iowait=10)
    often, seldom = HostReader(proc), HostReader(proc, interval_ns=3600 * 10**9)
    before = often.read(), seldom.read()
    (proc / "meminfo").unlink()
    assert (often.read(), seldom.read()) == (None, before[1])
    assert before[1] is not None
