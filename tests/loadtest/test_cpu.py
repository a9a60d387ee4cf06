"""CPU accounting from /proc, on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penstock_loadtest import cpu
from penstock_loadtest.cpu import CpuReading

PARENT = """
import subprocess, sys
own = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                        start_new_session=True)
ended = subprocess.run([sys.executable, "-c",
    "import time\\nwhile time.process_time() < 0.3: pass"])
print(own.pid, left.pid, flush=True)
input()
"""


@contextmanager
def family() -> Iterator[tuple[int, int, int]]:
    """A session leader with a child, a child that left the session, and a child that used 0.3 s and ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        own, left = map(int, process.stdout.readline().split())
        yield process.pid, own, left


def test_a_family_is_the_session_and_those_who_left_it() -> None:
    with family() as (leader, own, left):
        assert cpu.members(leader) == {leader, own, left}


def test_time_of_children_that_ended_is_kept() -> None:
    with family() as (leader, _, _):
        reading = cpu.read(leader)
    assert reading.session_s >= 0.3
    assert reading.machine_s >= reading.session_s


def test_a_process_that_has_gone_has_no_name() -> None:
    with family() as (leader, _, _):
        assert cpu.name_of(leader).startswith("python")
    assert cpu.name_of(leader) == "?"


def test_names_with_brackets_and_spaces_are_read() -> None:
    with open("/proc/self/comm", "w") as comm:
        before = cpu.name_of(os.getpid())
        comm.write("a) (b")
        comm.flush()
        assert cpu.name_of(os.getpid()) == "a) (b"
        comm.seek(0)
        comm.write(before)


def test_the_difference_names_the_busiest_thread() -> None:
    before = CpuReading(10.0, {(1, 1, "main"): 9.0, (1, 2, "loop"): 1.0}, 100.0)
    after = CpuReading(13.0, {(1, 1, "main"): 9.5, (1, 2, "loop"): 2.5, (2, 2, "new"): 1.0}, 105.0)
    found = cpu.between(before, after)
    assert (found.session_s, found.machine_s) == (3.0, 5.0)
    assert found.busiest_thread == "loop"
    assert found.busiest_thread_s == pytest.approx(1.5)


def test_a_session_that_has_gone_used_nothing() -> None:
    empty = CpuReading(0.0, {}, 1.0)
    assert cpu.between(empty, empty).busiest_thread == "-"
