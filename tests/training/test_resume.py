"""Killed at any time, on any rank, and gone on with on another number of processes: the curve is the one of a run that
nobody disturbed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from penstock_training.run_folder import RunFolder
from ranks import run_ranks
from tiny_run import curve, run_here, tiny

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_here(tiny(tmp_path_factory.mktemp("undisturbed") / "run"))


def assert_same(folder: RunFolder, reference: RunFolder) -> None:
    for name in (
        "train/loss",
        "train/accuracy",
        "train/learning_rate",
        "validation/loss",
        "validation/accuracy",
    ):
        expected = curve(reference, name)
        assert curve(folder, name) == pytest.approx(expected, rel=1e-4), name
    outcome, expected_outcome = folder.outcome(), reference.outcome()
    assert outcome is not None and expected_outcome is not None
    assert outcome.status == expected_outcome.status == "finished"


def test_learns_at_all(undisturbed: RunFolder) -> None:
    losses = curve(undisturbed)
    assert list(losses) == list(range(1, 25))
    assert losses[24] < losses[1] / 2
    assert curve(undisturbed, "validation/accuracy")[24] > 0.9


@pytest.mark.parametrize(
    ("size", "killed_rank", "killed_at", "size_afterwards"),
    [(2, 0, 9, 4), (4, 2, 17, 1)],
)
def test_the_curve_goes_on_on_another_number_of_processes(
    tmp_path: Path,
    undisturbed: RunFolder,
    size: int,
    killed_rank: int,
    killed_at: int,
    size_afterwards: int,
) -> None:
    config = tiny(tmp_path / "run", {"kill_rank": killed_rank, "kill_at": killed_at})
    codes = run_ranks(config, size)
    assert codes[killed_rank] == KILLED
    # the others notice at once, and leave what happened to those who start them
    assert [code for rank, code in enumerate(codes) if rank != killed_rank] == [1] * (size - 1)
    folder = RunFolder(config.run.folder)
    newest = folder.checkpoints.newest()
    assert folder.outcome() is None and newest is not None
    assert newest.world_size == size and 0 < newest.step < 24

    assert run_ranks(config, size_afterwards, resume=True) == [0] * size_afterwards
    assert_same(folder, undisturbed)


def test_sharded_weights_are_resumed_whole(tmp_path: Path) -> None:
    whole = run_here(tiny(tmp_path / "whole", {"norm": False}))
    config = tiny(
        tmp_path / "run",
        {"norm": False, "kill_rank": 1, "kill_at": 22},
        training={"parallel": "fsdp"},
    )
    assert run_ranks(config, 2) == [1, KILLED]
    assert run_ranks(config, 1, resume=True) == [0]
    assert_same(RunFolder(config.run.folder), whole)
