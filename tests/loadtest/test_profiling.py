"""Profiles: shares of time from py-spy's collapsed stacks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from penstock_loadtest.profiling import Record, functions, parse_collapsed

TEXT = """main (a.py:1);step (a.py:9);decode (b.py:2) 6
main (a.py:1);step (a.py:9) 3
main (a.py:1);loop (a.py:4);loop (a.py:4) 1
 75
"""


def test_threads_outside_python_are_left_out() -> None:
    assert parse_collapsed(TEXT).total() == 10


def test_own_time_is_the_innermost_function() -> None:
    own, _ = functions(parse_collapsed(TEXT))
    assert own == {"decode (b.py:2)": 6, "step (a.py:9)": 3, "loop (a.py:4)": 1}


def test_time_with_callees_counts_recursion_once() -> None:
    _, inclusive = functions(parse_collapsed(TEXT))
    assert inclusive["main (a.py:1)"] == 10
    assert inclusive["step (a.py:9)"] == 9
    assert inclusive["loop (a.py:4)"] == 1


def test_the_table_shows_shares_of_all_samples() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(Record("envoy-7", Path("envoy-7.txt"), parse_collapsed(TEXT)).table(top=1))
    text = captured.get()
    assert "envoy-7: 10 samples" in text
    assert "60.0%" in text
    assert "step" not in text
