"""The learning rate of each step: a function of the step's number, so that there is nothing to keep in a checkpoint."""

from __future__ import annotations

import math

from penstock_training.config import ScheduleSettings


def warmup_steps(settings: ScheduleSettings, total_steps: int) -> int:
    """How many steps the rise takes."""
    share = settings.warmup
    return min(total_steps, round(share * total_steps if share < 1 else share))


def factor(settings: ScheduleSettings, step: int, total_steps: int) -> float:
    """What step `step`, counted from 0, has of the highest rate. The first after the warm-up has all of it, the last
    has `final`."""
    warmup = warmup_steps(settings, total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    way = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    match settings.kind:
        case "constant":
            return 1.0
        case "linear":
            left = 1 - way
        case "cosine":
            left = (1 + math.cos(math.pi * way)) / 2
    return settings.final + (1 - settings.final) * left
