"""The training loop: learn, tell each other, evaluate, save, until nothing is left to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from penstock_training.batches import Batches
from penstock_training.checkpoint import Checkpoints
from penstock_training.errors import Diverged, RecipeError
from penstock_training.evaluate import evaluate
from penstock_training.learner import Learner
from penstock_training.pulse import Pulse
from penstock_training.recipe import Splits
from penstock_training.reporter import Reporter
from penstock_training.state import State


@dataclass
class Loop:
    """One run in one process. All processes take the same turns: each decision rests on what all of them know."""

    learner: Learner
    splits: Splits
    checkpoints: Checkpoints
    reporter: Reporter
    stop_wanted: Callable[[], bool]
    state: State

    def run(self) -> bool:
        """Trains from `state` on. False: somebody wanted it to stop, and it can be resumed."""
        if self.state.done:
            return True
        self._pulse = Pulse(self.learner.world, self.learner.plan.batch_size, self.stop_wanted)
        self.learner.shared.learning.train()
        config, plan = self.learner.config, self.learner.plan
        batches = Batches(
            self.splits.train,
            plan,
            config.training.seed,
            config.data.prefetch,
            self.learner.world.device,
        )
        for step, micro_batches in batches.steps(self.state.step):
            with_metrics = (step + 1) % config.progress.log_every_steps == 0
            self._pulse.note(step + 1, self.learner.learn(step, micro_batches, with_metrics))
            if self._finish_step(step + 1) or self.state.done:
                break
        self.checkpoints.wait()
        return self.state.done

    def _finish_step(self, step: int) -> bool:
        """What follows from having done so many steps. True: somebody wants to stop."""
        self.state = replace(self.state, step=step)
        evaluates, saves = self._evaluates_after(step), self._saves_after(step)
        stop = False
        if self._pulse.is_due or evaluates or saves:
            stop = self._beat()
        if evaluates:
            self._evaluate()
            saves |= self.state.done or self._is_worth_keeping()
        if saves or stop:
            self._save()
        return stop

    def _evaluates_after(self, step: int) -> bool:
        plan, every = self.learner.plan, self.learner.config.evaluation.every_epochs
        return step % (plan.steps_per_epoch * every) == 0 or step == plan.total_steps

    def _saves_after(self, step: int) -> bool:
        every = self.learner.config.checkpoints.every_steps
        return every > 0 and step % every == 0

    def _is_worth_keeping(self) -> bool:
        """After an evaluation."""
        return (
            not self.learner.config.checkpoints.every_steps
            or self.state.best.step == self.state.step
        )

    def _beat(self) -> bool:
        """Notes the losses of all processes. True: somebody wants to stop."""
        beat = self._pulse.beat()
        every = self.learner.config.progress.log_every_steps
        window = list(self.state.window)
        first = self.state.step - len(beat.losses) + 1
        for step, loss in enumerate(beat.losses, first):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {step}")
            window.append(loss)
            if step % every == 0:
                mean, window = math.fsum(window) / len(window), []
                rate = self.learner.rate(step - 1)
                self.reporter.learned(step, mean, rate, beat.metrics.get(step, {}))
        self.state = replace(self.state, window=tuple(window))
        self.reporter.at(self.state.step, beat.losses)
        self.checkpoints.poll()
        return beat.stop

    def _evaluate(self) -> None:
        learner = self.learner
        config, world = learner.config, learner.world
        learner.buffers.average(world)
        self.reporter.evaluating(self.state.step)
        size = config.evaluation.batch_size or max(256, 2 * learner.plan.micro_batch_size)
        values = evaluate(
            learner.recipe, learner.shared, learner.precision, self.splits.validation, size, world
        )
        if config.evaluation.best not in values:
            raise RecipeError(
                f"evaluation.best: the recipe has no metric {config.evaluation.best!r}; "
                f"expected one of {', '.join(values)}"
            )
        if not math.isfinite(values["loss"]):
            raise self._diverged(
                f"the validation loss is {values['loss']} after step {self.state.step}"
            )
        best = self.state.best.after(config.evaluation, self.state.step, values)
        done = self.state.step == learner.plan.total_steps or best.gives_up(config.evaluation)
        self.state = replace(self.state, best=best, done=done)
        self.reporter.evaluated(self.state.step, values, best.step == self.state.step)

    def _save(self) -> None:
        learner = self.learner
        learner.buffers.average(learner.world)
        if not self._weights_are_finite():
            raise self._diverged(f"weights are no numbers any more after step {self.state.step}")
        self.state = replace(self.state, scaler=learner.precision.state())
        self.checkpoints.save(learner.shared.model, learner.optimizer, self.state)

    @torch.no_grad()
    def _weights_are_finite(self) -> bool:
        """In all processes. A loss is seen before its update: what was still a number may have left none."""
        world = self.learner.world
        weights = [getattr(p, "_local_tensor", p) for p in self.learner.shared.model.parameters()]
        norm = torch.nn.utils.get_total_norm(weights).double()
        return bool(world.sum(norm).isfinite())

    def _diverged(self, what: str) -> Diverged:
        step = self.checkpoints.newest_step()
        kept = (
            "there is no checkpoint yet"
            if step is None
            else f"the checkpoint of step {step} is kept"
        )
        return Diverged(
            f"{what}; {kept}. A smaller optimizer.learning_rate, or training.clip_norm, may help"
        )
