"""Peers: which contestants meet in which case."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_loadtest.cases import EMBEDDER_CASE, Case
from penstock_loadtest.contestants import BareLoop, Served, only_model
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.measurement import Measurement
from penstock_loadtest.peers import Peers
from penstock_loadtest.servers import Penstock, Server, Triton

PENSTOCK, TRITON = Penstock(("penstock",)), Triton(Path("peers"))
IDENTITY = Case("identity", "grpc", 64)


def peers(folder: Path, subject: Server = PENSTOCK) -> Peers:
    return Peers(subject, TRITON, folder / "peers", folder, client=None, cores=4, threads=2)


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """A repository whose embedder has been made."""
    version = tmp_path / "embedder" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").touch()
    return tmp_path


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """No server is started: each contestant's rate is looked up here."""
    rates = {"penstock": 300.0, "triton": 100.0, "bare loop": 320.0, "bare onnx": 400.0}

    def measure(self: Served | BareLoop, case: Case, seconds: float) -> Measurement:
        return Measurement(self.name, case.name, 1, rates[self.name], 1.0)

    monkeypatch.setattr(Served, "measure", measure)
    monkeypatch.setattr(BareLoop, "measure", measure)
    return rates


def test_a_peer_case_compares_both_servers(tmp_path: Path) -> None:
    said: list[str] = []
    outcome = peers(tmp_path).run([IDENTITY], 2, 1.0, said.append)
    assert [(c.subject, c.baseline) for c in outcome.comparisons] == [("penstock", "triton")]
    assert outcome.comparisons[0].throughput.rounds == (3.0, 3.0)
    assert len(outcome.measurements) == len(said) == 4


def test_goals_are_for_penstock_only(tmp_path: Path) -> None:
    goal = Case("identity", "grpc", 64, throughput_goal=2.0)
    for subject, kept in ((PENSTOCK, 2.0), (TRITON, None)):
        outcome = peers(tmp_path, subject).run([goal], 1, 1.0, lambda _: None)
        assert outcome.comparisons[0].case.throughput_goal == kept


def test_the_embedder_is_compared_with_both_bare_loops(embedder: Path) -> None:
    outcome = peers(embedder).run([EMBEDDER_CASE], 1, 1.0, lambda _: None)
    assert [(c.baseline, c.throughput.median) for c in outcome.comparisons] == [
        ("bare loop", 300 / 320),
        ("bare onnx", 300 / 400),
    ]


def test_an_embedder_that_is_not_made_is_skipped_and_the_rest_runs(tmp_path: Path) -> None:
    outcome = peers(tmp_path).run([EMBEDDER_CASE, IDENTITY], 1, 1.0, lambda _: None)
    assert [c.case for c in outcome.comparisons] == [IDENTITY]
    assert "is not made yet, run: python" in outcome.skipped[0]


def test_the_peers_triton_cannot_serve_the_embedder(embedder: Path) -> None:
    outcome = peers(embedder, subject=TRITON).run([EMBEDDER_CASE], 1, 1.0, lambda _: None)
    assert outcome.skipped == ["embedder-grpc-32: the peers' Triton has no ONNX Runtime backend"]


def test_only_the_cases_model_is_served(tmp_path: Path) -> None:
    for name in ("identity", "image"):
        (tmp_path / "repo" / name / "1").mkdir(parents=True)
        (tmp_path / "repo" / name / "1" / "model.py").touch()
    target = only_model(tmp_path / "repo", "image", tmp_path / "copy")
    assert [p.relative_to(target).as_posix() for p in sorted(target.rglob("*"))] == [
        "image",
        "image/1",
        "image/1/model.py",
    ]


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no model image in"):
        only_model(tmp_path, "image", tmp_path / "copy")
