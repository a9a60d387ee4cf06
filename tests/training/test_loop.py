"""The loop in one process: what it computes, when it stops, and what it says when it can't go on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penstock_training.batches import Batches, MicroBatch
from penstock_training.buffers import RunningBuffers
from penstock_training.config import RunSettings, TrainConfig
from penstock_training.errors import Diverged, RecipeError
from penstock_training.evaluate import evaluate
from penstock_training.learner import Learner
from penstock_training.optimizer import make_optimizer
from penstock_training.parallel import share
from penstock_training.plan import make_plan
from penstock_training.precision import Precision
from penstock_training.pulse import Pulse
from penstock_training.rank import main
from penstock_training.recipe import Batch, Recipe
from penstock_training.run_folder import RunFolder
from penstock_training.stopping import StopSignal
from penstock_training.tracking import NoTracker
from penstock_training.world import World, join
from tiny_recipe import Corners, TinyOptions
from tiny_run import begin, curve, run_here, tiny

PLAIN = {"norm": False, "dropout": 0.0, "noise": 0.0}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return join(RunSettings(folder=tmp_path, device="cpu"))


def learner_of(config: TrainConfig, world: World, recipe: Recipe, model: nn.Module) -> Learner:
    plan = make_plan(config.training, 256, 0, 1)
    shared = share(config.training, recipe, model, world)
    optimizer = make_optimizer(config.optimizer, model)
    precision = Precision(config.training, world.device)
    return Learner(
        config,
        world,
        plan,
        recipe,
        shared,
        optimizer,
        precision,
        RunningBuffers(model, plan.accumulation),
    )


def test_a_step_is_that_of_plain_torch_however_many_micro_batches_it_has(
    tmp_path: Path, world: World
) -> None:
    """Accumulation, clipping, weight decay and warm-up against the same written down directly."""
    config = tiny(tmp_path / "run", PLAIN, training={"clip_norm": 0.01})
    recipe = Corners(config, TinyOptions(**PLAIN))  # type: ignore[arg-type]
    torch.manual_seed(1)
    model, plain = recipe.model(), recipe.model()
    plain.load_state_dict(model.state_dict())
    learner = learner_of(config, world, recipe, model)
    assert learner.plan.accumulation == 4
    rows = recipe.datasets(None).train  # type: ignore[arg-type]
    batch = rows.fetch(torch.arange(32))
    parts = [
        MicroBatch(n, n == 0, n == 3, {k: v[8 * n : 8 * n + 8] for k, v in batch.items()})
        for n in range(4)
    ]

    optimizer = make_optimizer(config.optimizer, plain)
    for step in range(3):
        learned = learner.learn(step, parts, with_metrics=True)
        outputs = plain(batch["POINT"])
        loss = nn.functional.cross_entropy(outputs, batch["label"])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
        for group in optimizer.param_groups:
            group["lr"] = learner.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        assert float(torch.cat(learned.losses).mean()) == pytest.approx(
            float(loss.detach()), rel=1e-6
        )
        right = float((outputs.argmax(1) == batch["label"]).float().mean())
        assert float(learned.metrics["accuracy"]) == pytest.approx(right)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_running_averages_take_one_step_however_many_micro_batches_there_are(
    tmp_path: Path, world: World
) -> None:
    torch.manual_seed(3)
    parts = torch.randn(4, 8, 5)
    norm, each = nn.BatchNorm1d(5), [nn.BatchNorm1d(5) for _ in range(4)]
    buffers = RunningBuffers(norm, 4)
    for number, part in enumerate(parts):
        buffers.begin_micro_batch(number == 0)
        norm(part)
        buffers.end_micro_batch(number == 3)
        each[number](part)
    buffers.average(world)
    mean = torch.stack([n.running_mean for n in each if n.running_mean is not None]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    assert norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 1


def test_decay_is_for_matrices_alone(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", optimizer={"weight_decay": 0.5})
    model = Corners(config, TinyOptions()).model()
    assert isinstance(model, nn.Sequential)
    model[4].weight.requires_grad_(False)
    groups = make_optimizer(config.optimizer, model).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [
        (0.5, 1),
        (0.0, 3),
    ]
    sgd = make_optimizer(tiny(tmp_path / "sgd", optimizer={"kind": "sgd"}).optimizer, model)
    assert isinstance(sgd, torch.optim.SGD) and sgd.param_groups[0]["momentum"] == 0.9


def test_the_same_run_twice_gives_the_same_bits(tmp_path: Path) -> None:
    runs = [
        run_here(tiny(tmp_path / name, training={"epochs": 1}, data={"prefetch": prefetch}))
        for name, prefetch in (("a", 0), ("b", 2))
    ]
    assert curve(runs[0]) == curve(runs[1])
    other = run_here(tiny(tmp_path / "c", training={"epochs": 1, "seed": 1}))
    assert curve(other) != curve(runs[0])


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.1), ("float16", 0.05)])
def test_low_precision_learns_the_same(tmp_path: Path, precision: str, tolerance: float) -> None:
    expected = curve(run_here(tiny(tmp_path / "float32")))
    folder = run_here(tiny(tmp_path / precision, training={"precision": precision}))
    found = curve(folder)
    assert found != expected
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    newest = folder.checkpoints.newest()
    assert newest is not None and bool(newest.state.scaler) == (precision == "float16")


def test_an_evaluation_counts_each_row_once(tmp_path: Path, world: World) -> None:
    config = tiny(tmp_path / "run")
    recipe = Corners(config, TinyOptions())
    torch.manual_seed(1)
    model = recipe.model()
    rows = recipe.datasets(None).validation  # type: ignore[arg-type]
    shared = share(config.training, recipe, model, world)
    precision = Precision(config.training, world.device)
    # 77 rows: the last batch is not full
    found = evaluate(recipe, shared, precision, rows, 10, world)
    batch = rows.fetch(torch.arange(77))
    outputs = model.eval()(batch["POINT"])
    assert found["accuracy"] == int((outputs.argmax(1) == batch["label"]).sum()) / 77
    assert found["loss"] == pytest.approx(
        float(recipe.loss(outputs, batch).detach().mean()), rel=1e-6
    )


def test_two_thirds_of_the_processes_may_have_no_rows(tmp_path: Path, world: World) -> None:
    """Each takes its turns; what is summed is checked against the number of rows."""
    from penstock_training.evaluate import _turns

    worlds = [dataclasses.replace(world, rank=rank, size=3) for rank in range(3)]
    turns = [[(rows.tolist(), counts) for rows, counts in _turns(5, 3, each)] for each in worlds]
    assert turns == [[([0, 1, 2], True)], [([3, 4], True)], [([0, 1, 2], False)]]


def test_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    config = tiny(
        tmp_path / "run",
        training={"epochs": 30},
        evaluation={"best": "loss", "patience": 2, "min_delta": 0.05},
        checkpoints={"every_steps": 0, "keep": 1},
    )
    folder = run_here(config)
    newest = folder.checkpoints.newest()
    assert newest is not None and newest.state.done and newest.step < 240
    best = newest.state.best.step
    assert best is not None and newest.step == best + 2 * 8
    assert [mark.step for mark in folder.checkpoints.complete()] == [best, newest.step]
    # and it has nothing more to do
    before = curve(folder)
    run_here(config, resume=True)
    assert curve(folder) == before


def test_who_wants_it_to_stop_gets_a_checkpoint_of_where_it_is(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", checkpoints={"every_steps": 100})
    asked: list[bool] = []

    def stop_wanted() -> bool:
        asked.append(True)
        return len(asked) == 2

    folder = run_here(config, stop_wanted=stop_wanted)
    outcome, newest = folder.outcome(), folder.checkpoints.newest()
    assert outcome is not None and outcome.status == "stopped"
    assert newest is not None and newest.step == outcome.step < 24
    whole = run_here(tiny(tmp_path / "whole", checkpoints={"every_steps": 100}))
    run_here(config, resume=True)
    assert curve(folder) == pytest.approx(curve(whole), rel=1e-5)


def test_points_of_the_curve_do_not_depend_on_where_it_was_stopped(tmp_path: Path) -> None:
    """A point is the mean over ten steps, of which some were before."""
    sections: dict[str, dict[str, Any]] = {
        "progress": {"log_every_steps": 10},
        "checkpoints": {"every_steps": 6},
    }
    whole = run_here(tiny(tmp_path / "whole", **sections))
    config = tiny(tmp_path / "run", **sections)
    folder = run_here(config, stop_wanted=iter([False] * 2 + [True] * 99).__next__)
    assert len(curve(folder)) < len(curve(whole)) == 2
    run_here(config, resume=True)
    assert curve(folder) == pytest.approx(curve(whole), rel=1e-6)


def test_a_loss_that_is_no_number_ends_the_run_and_nothing_that_was_good(tmp_path: Path) -> None:
    # 4 micro-batches a step: the 11th step is the first with a NaN
    config = tiny(tmp_path / "run", {"nan_at": 40})
    folder = begin(config)
    with open(tmp_path / "said", "w") as out:
        assert main(folder.path, StopSignal(), out) == 1
    outcome = folder.outcome()
    assert outcome is not None and outcome.status == "failed"
    assert "the loss is nan at step 11; the checkpoint of step 9 is kept" in outcome.text
    assert [mark.step for mark in folder.checkpoints.complete()] == [8, 9]
    # processes that are started again for it leave at once
    with open(tmp_path / "said", "w") as out:
        assert main(folder.path, StopSignal(), out) == 0


def test_weights_that_are_no_numbers_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is seen before its update."""
    update = Learner._update

    def spoil(self: Learner, step: int) -> None:
        update(self, step)
        if step == 5:
            with torch.no_grad():
                next(self.shared.model.parameters()).fill_(float("inf"))

    monkeypatch.setattr(Learner, "_update", spoil)
    with pytest.raises(
        Diverged,
        match=r"weights are no numbers any more after step 6; .* of step 3 is kept",
    ):
        run_here(tiny(tmp_path / "run"))


class WrongLoss(Corners):
    def loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return super().loss(outputs, batch).mean()


def test_says_what_shape_a_loss_should_have(tmp_path: Path, world: World) -> None:
    config = tiny(tmp_path / "run")
    recipe = WrongLoss(config, TinyOptions())
    learner = learner_of(config, world, recipe, recipe.model())
    batches = Batches(recipe.datasets(None).train, learner.plan, 0, 0, world.device)  # type: ignore[arg-type]
    step, micro_batches = next(batches.steps(0))
    with pytest.raises(
        RecipeError, match=r"the recipe's loss has the shape \[\]; expected .* \[8\]"
    ):
        learner.learn(step, micro_batches, with_metrics=False)


def test_says_which_metrics_there_are(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", evaluation={"best": "recall"})
    with pytest.raises(RecipeError, match="no metric 'recall'; expected one of loss, accuracy"):
        run_here(config)


def test_an_error_is_worth_another_try_when_the_run_has_come_further(tmp_path: Path) -> None:
    # a process raises after 40 micro-batches: in step 11, then, from step 9 on, in step 20; step 18 is kept
    folder = begin(tiny(tmp_path / "run", {"raise_at": 40}))
    said = tmp_path / "said"
    with said.open("w") as out:
        assert [main(folder.path, StopSignal(), out) for _ in range(3)] == [1, 1, 0]
    assert said.read_text().count("ValueError: this recipe is broken") == 2
    assert list(curve(folder)) == list(range(1, 25))


def test_the_same_error_twice_ends_the_run(tmp_path: Path) -> None:
    folder = begin(tiny(tmp_path / "run", {"raise_at": 0}))
    with (tmp_path / "said").open("w") as out:
        assert [main(folder.path, StopSignal(), out) for _ in range(3)] == [1, 1, 0]
    outcome = folder.outcome()
    assert outcome is not None
    assert "the same error twice: ValueError: this recipe is broken (" in outcome.text
    assert "tiny_recipe.py, line" in outcome.text


class Recording(NoTracker):
    """Remembers, and fails where it is told to."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.calls = fails, list[str]()

    def start(self, config: object, facts: object) -> None:
        self.calls.append("start")

    def log_metrics(self, step: int, values: object) -> None:
        self.calls.append(f"metrics {step}")
        if self.fails:
            raise ConnectionError("the tracker is away")

    def checkpoint(self, folder: Path, step: int) -> None:
        assert json.loads((folder / "checkpoint.json").read_text())["state"]["step"] == step
        self.calls.append(f"checkpoint {step}")

    def finish(self, status: str) -> None:
        self.calls.append(status)


@pytest.mark.parametrize("fails", [False, True])
def test_the_tracker_hears_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    tracker = Recording(fails)
    monkeypatch.setattr("penstock_training.companions.tracker_of", lambda config, world: tracker)
    folder = run_here(tiny(tmp_path / "run", training={"epochs": 1}))
    assert tracker.calls[0] == "start" and tracker.calls[-1] == "finished"
    assert [call for call in tracker.calls if "checkpoint" in call] == [
        f"checkpoint {n}" for n in (3, 6, 8)
    ]
    assert tracker.calls.count("metrics 8") == 2
    assert len(curve(folder)) == 8
    said = capsys.readouterr().err
    assert (
        said.count("tracking fails, the training goes on: ConnectionError: the tracker is away")
        == fails
    )


def test_processes_tell_each_other_twice_a_second(world: World) -> None:
    now = [0.0]
    pulse = Pulse(world, 1, lambda: False, lambda: now[0])
    from penstock_training.learner import Learned

    def steps(seconds: float) -> int:
        count = 0
        while True:
            now[0] += seconds
            count += 1
            pulse.note(count, Learned((torch.tensor([1.0]),), {}))
            if pulse.is_due:
                pulse.beat()
                return count

    assert [steps(0.01), steps(0.01), steps(0.01)] == [1, 50, 50]
    assert [steps(2.0), steps(2.0)] == [50, 1]


def test_run_folder_survives_a_line_that_was_cut(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "tra')
    assert curve(folder) == {1: 2.0}
