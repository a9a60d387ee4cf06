"""Which turns are run, in which order, with which flags, and what of an earlier report stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience import program
from penstock_loadtest.resilience.fairness import TIMES
from penstock_loadtest.resilience.overload import LOADS
from penstock_loadtest.resilience.page import MAKERS
from penstock_loadtest.resilience.program import Resilience, publish
from penstock_loadtest.resilience.report import Part, Report, read_report, write_report
from penstock_loadtest.servers import Penstock, Server, Triton

SERVERS: tuple[Server, ...] = (
    Penstock(("penstock",), ("--front", "grpcio")),
    Triton(Path("peers")),
)


class Turns:
    """Stands for the real turns: gives those of a report, and remembers what was asked for."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.asked: list[tuple[Any, ...]] = []

    def load(self, server: Server, *asked: Any) -> Any:
        self.asked.append((server, *asked))
        return self.report.goodput[0]

    def fair(self, server: Server, *asked: Any) -> Any:
        self.asked.append((server, *asked))
        return self.report.fairness[0]

    def reload(self, server: Server, *asked: Any) -> Any:
        self.asked.append((server, *asked))
        return self.report.reloads[0]


@pytest.fixture
def turns(report: Report, monkeypatch: pytest.MonkeyPatch) -> Turns:
    """In place of the real ones."""
    found = Turns(report)
    monkeypatch.setattr(program, "load_turn", found.load)
    monkeypatch.setattr(program, "fair_turn", found.fair)
    monkeypatch.setattr(program, "reload_turn", found.reload)
    return found


def run(parts: list[Part], folder: Path) -> Report:
    """Two rounds of 3 s, 50 reloads."""
    return Resilience(SERVERS, 3.0, 2, 50, lambda _: None).run(parts, folder)


def test_servers_take_turns_at_each_load(turns: Turns, tmp_path: Path) -> None:
    report = run([Part.GOODPUT], tmp_path)
    assert [(server.name, *asked) for server, *asked in turns.asked] == [
        (name, round_, load, 3.0)
        for round_ in (0, 1)
        for load in LOADS
        for name in ("penstock", "triton")
    ]
    assert len(report.goodput) == len(turns.asked)
    assert report.settings == {"goodput": {"rounds": 2, "seconds": 3.0}}


def test_tenants_get_twice_the_time(turns: Turns, tmp_path: Path) -> None:
    run([Part.FAIRNESS], tmp_path)
    assert {asked[-1] for asked in turns.asked} == {6.0}
    assert len(turns.asked) == 2 * 2 * len(TIMES)


def test_reloads_every_second_and_one_after_the_other(turns: Turns, tmp_path: Path) -> None:
    run([Part.RELOADS, Part.LOOPS], tmp_path)
    assert [(server.name, *asked) for server, *asked in turns.asked] == [
        ("penstock", 0, 6, 1.0, True),
        ("triton", 0, 6, 1.0, True),
        ("penstock", 1, 6, 1.0, False),
        ("triton", 1, 6, 1.0, False),
        ("penstock", 0, 50, 0.0, False),
        ("triton", 0, 50, 0.0, False),
    ]


def test_the_flags_of_each_server(turns: Turns, tmp_path: Path) -> None:
    run([Part.LOOPS], tmp_path)
    (penstock,), (triton,) = ([s.flags for s, *_ in turns.asked[at : at + 1]] for at in (0, 1))
    assert penstock[:3] == ("--front", "grpcio", "--exit-timeout-secs=1")
    assert "--tenant-header" in penstock
    assert "--tenant-header" not in triton
    assert {"--model-control-mode=explicit", "--load-model=sleeper"} <= set(penstock) & set(triton)


def test_other_parts_stay(turns: Turns, report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    run([Part.LOOPS], tmp_path)
    found = read_report(tmp_path)
    assert found.goodput == report.goodput
    assert found.loops == (report.reloads[0],) * 2
    assert found.settings == report.settings | {"loops": {"rounds": 1, "reloads": 50}}


def test_a_report_is_published(report: Report, tmp_path: Path) -> None:
    said: list[str] = []
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in MAKERS))
    write_report(report, tmp_path)
    publish(tmp_path, page, said.append)
    assert "| 2 | 100% | 4% |" in page.read_text()
    assert f"written: {tmp_path / 'goodput.svg'}" in said
    assert f"filled in: {page}" in said


def test_there_need_be_no_page(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    publish(tmp_path, tmp_path / "nowhere.md", lambda _: None)
    assert (tmp_path / "loops.svg").exists()


def test_there_must_be_a_report(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="can't be read"):
        publish(tmp_path, tmp_path / "nowhere.md", lambda _: None)
