"""What a person sees."""

from __future__ import annotations

import io
from pathlib import Path

from penstock_training.config import TrainConfig
from penstock_training.progress import Bars, Display, Lines, display_for
from penstock_training.tracking import RunFacts
from tiny_run import tiny


def facts(folder: Path) -> RunFacts:
    return RunFacts(folder, 2, "cpu", "ddp", 8, 2, 1234567, {"train": 9000}, 24, 8, restarts=1)


def show(display: Display, config: TrainConfig) -> None:
    display.start(config, facts(config.run.folder))
    display.at(10, [0.5], 4000.0)
    display.learned(10, 0.5, 1e-3, {"accuracy": 0.75})
    display.evaluating(16)
    display.evaluated(16, {"loss": 0.25, "accuracy": 0.875}, True)
    display.saved(16)
    display.say("something [else]")
    display.finish("finished", "step 24")


def test_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = tiny(tmp_path)
    display = display_for(config, stream)
    assert isinstance(display, Lines)
    show(display, config)
    assert stream.getvalue().splitlines() == [
        f"{config.recipe.name}: 1,234,567 weights, 9,000 rows, batch 32 = 2 x 2 x 8, 2 processes (ddp) on cpu, "
        "goes on after step 8 of 24, restart 1",
        "step 10/24  loss 0.5  accuracy 0.75  rate 1.00e-03  4,000 samples/s",
        "step 16/24  validation: loss 0.25  accuracy 0.875  (best)",
        "something [else]",
        "finished: step 24",
    ]


def test_bars(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = tiny(tmp_path, progress={"bars": True})
    display = display_for(config, stream)
    assert isinstance(display, Bars)
    show(display, config)
    text = stream.getvalue()
    for told in (
        "1,234,567 weights",
        "16/24",
        "loss 0.5",
        "4,000/s",
        "accuracy 0.875",
        "[else]",
        "finished: step 24",
    ):
        assert told in " ".join(text.split()), told
