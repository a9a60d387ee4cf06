"""Checkpoints: whole or not there, however they end; and what is said of one that does not fit."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

from bad_ranks import killed_at, with_little_room
from penstock.errors import ConfigError
from penstock_training.checkpoint import restore_model
from penstock_training.checkpoint_folder import MARK, CheckpointFolder
from penstock_training.early_stopping import Best
from penstock_training.errors import CheckpointError
from penstock_training.launch import taken_up
from penstock_training.run_folder import RunFolder
from penstock_training.state import State
from ranks import ranks, run_ranks
from tiny_recipe import Corners, TinyOptions
from tiny_run import SOURCE, begin, curve, run_here, tiny


def sealed(folder: CheckpointFolder, step: int, best: int | None = None) -> Path:
    part = folder.part(step)
    part.mkdir(parents=True)
    (part / "weights").write_bytes(b"x" * step)
    return folder.seal(State(step, Best(best)), {"training.epochs": 3}, 2)


def steps(folder: CheckpointFolder) -> list[int]:
    return [mark.step for mark in folder.complete()]


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2, 3, 100_000_000):
        sealed(folder, step)
    folder.prune(2, best_step=1)
    assert steps(folder) == [1, 3, 100_000_000]
    newest = folder.newest()
    assert newest is not None and newest.step == 100_000_000
    assert dict(newest.config) == {"training.epochs": 3} and newest.world_size == 2
    with pytest.raises(CheckpointError, match="no complete checkpoint of step 2"):
        folder.at(2)


def test_what_is_not_whole_is_none(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    good, cut, gone, unmarked = [sealed(folder, step) for step in (1, 2, 3, 4)]
    (cut / "weights").write_bytes(b"x")
    (gone / "weights").unlink()
    (unmarked / MARK).write_text('{"format"')
    folder.part(5).mkdir()
    assert steps(folder) == [1]
    folder.sweep()
    assert list(folder.path.iterdir()) == [good]


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    mark = sealed(folder, 1) / MARK
    mark.write_text(mark.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match="format 2 is not known; expected 1"):
        folder.newest()


def test_a_state_survives_json(tmp_path: Path) -> None:
    state = State(7, Best(5, {"loss": 0.25}, 1), (1.0, 2.0), True, {"scale": 65536.0})
    assert State.from_json(state.to_json()) == state


KILLS = {
    "before it is marked": "write_synced",
    "before it has its name": "sync_folder",
    "while an old one is deleted": "CheckpointFolder._delete",
}


@pytest.mark.parametrize("place", KILLS.values(), ids=KILLS.keys())
def test_killed_at_any_point_of_a_save(tmp_path: Path, place: str) -> None:
    config = tiny(tmp_path / "run", checkpoints={"every_steps": 1, "keep": 1})
    folder = begin(config)
    with ranks(killed_at, 1, folder.path, place) as (process,):
        process.join()
        assert process.exitcode == -signal.SIGKILL
    newest = folder.checkpoints.newest()
    assert newest is not None and newest.step < 24
    left = newest.step
    restore_model(newest, Corners(config, TinyOptions()).model())
    run_here(config, resume=True)
    assert list(curve(folder)) == list(range(1, 25))
    assert len(list(folder.checkpoints.path.iterdir())) <= 2 and left >= 1


def test_a_full_disk_ends_all_processes_and_keeps_what_was_there(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", training={"epochs": 1})
    assert run_ranks(config, 2) == [0, 0]
    folder = RunFolder(config.run.folder)
    # an older one is there, and the newest is made again
    shutil.rmtree(folder.checkpoints.at(8).folder)
    begin(config, resume=True)
    with ranks(with_little_room, 2, folder.path) as processes:
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [1, 1]
    outcome = folder.outcome()
    assert outcome is not None and outcome.status == "failed"
    assert "the checkpoint of step 8 can't be written: File too large (" in outcome.text
    assert "MiB are free); the one of step 6 is kept" in outcome.text
    assert not folder.checkpoints.part(8).exists()
    assert run_ranks(config, 2, resume=True) == [0, 0]


def test_written_while_the_training_goes_on(tmp_path: Path) -> None:
    expected = curve(run_here(tiny(tmp_path / "whole")))
    aside = {"asynchronous": True, "every_steps": 2, "keep": 100}
    config = tiny(tmp_path / "run", {"kill_rank": 1, "kill_at": 40}, checkpoints=aside)
    assert run_ranks(config, 2) == [1, -signal.SIGKILL]
    folder = RunFolder(config.run.folder)
    assert run_ranks(config, 2, resume=True) == [0, 0]
    assert curve(folder) == pytest.approx(expected, rel=1e-4)
    model = Corners(config, TinyOptions()).model()
    for mark in folder.checkpoints.complete():
        restore_model(mark, model)
    assert steps(folder.checkpoints)[-1] == 24


def test_a_model_that_has_changed_is_refused(tmp_path: Path) -> None:
    folder = run_here(tiny(tmp_path / "run", training={"epochs": 1}))
    mark = folder.checkpoints.at(8)
    with pytest.raises(CheckpointError, match="step-00000008 does not fit this recipe's model"):
        restore_model(mark, torch.nn.Linear(3, 4))


def test_another_configuration_is_refused_and_the_difference_told(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", training={"epochs": 1})
    folder = run_here(config)
    other = tiny(
        tmp_path / "run",
        {"hidden": 8},
        training={"epochs": 2},
        # these may change
        run={"processes": 3},
        checkpoints={"keep": 9},
        data={"prefetch": 1},
    )
    with pytest.raises(CheckpointError) as caught:
        taken_up(other, SOURCE, folder, resume=True)
    assert (
        "step-00000008 is of another configuration: recipe.options.hidden was not there, is 8; "
        "training.epochs was 1, is 2. Give what it had, or another run.folder"
    ) in str(caught.value)


def test_what_may_change_is_taken_and_what_the_run_has_found_is_kept(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", training={"epochs": 1, "micro_batch_size": 0})
    folder = run_here(config)
    again = taken_up(config.model_copy(update={"run": config.run}), SOURCE, folder, resume=True)
    assert again.given.training.micro_batch_size == 0
    assert again.config.training.micro_batch_size == 32
    with pytest.raises(
        ConfigError, match="has a run that has come to step 8: --resume goes on with it"
    ):
        taken_up(config, SOURCE, folder, resume=False)


def test_a_run_that_never_came_to_a_checkpoint_begins_again(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    folder = begin(config)
    other = tiny(tmp_path / "run", training={"epochs": 1, "micro_batch_size": 4})
    assert taken_up(other, SOURCE, folder, resume=True).config == other
    assert taken_up(other, SOURCE, folder, resume=False).config == other


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.opened(alone=True), pytest.raises(ConfigError, match="another run trains in"):
        folder.opened(alone=True).__enter__()
    with folder.opened(alone=True), folder.opened(alone=False):
        pass
