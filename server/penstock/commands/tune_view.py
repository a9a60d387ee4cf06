"""What `penstock models tune` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.table import Table
from rich.text import Text

from penstock.tuning.model import TunedModel
from penstock.tuning.search import CERTAINTY, LEAST_GAIN, Found, Trial

LEGEND: Final = (
    "rows/s and p99: medians of all turns. gain: the mean of what each turn shows against the same turn of the step's"
    f" first line. → takes over only with a gain of {LEAST_GAIN:.0%} or more that is over {CERTAINTY:.0f} standard"
    " errors of its turns; what is not is within noise, whatever the medians say."
)


def as_table(found: Found) -> Table:
    """All that was tried, race by race. The first line of each is the best one before."""
    table = Table("tried", "", "configuration")
    for name in ("rows/s", "p99 ms", "gain"):
        table.add_column(name, justify="right")
    step = ""
    for trial in found.trials:
        if trial.step != step and step:
            table.add_section()
        table.add_row(Text("" if trial.step == step else trial.step), *_cells(trial))
        step = trial.step
    return table


def _cells(trial: Trial) -> Iterator[Text]:
    yield Text("→" if trial.chosen else "")
    if trial.refused:
        yield Text(f"{trial.candidate}: {trial.refused}")
        yield from (Text("-"), Text("-"), Text("refused"))
        return
    yield Text(str(trial.candidate), style="bold" if trial.chosen else "")
    yield Text(f"{trial.rows_s:.0f}")
    yield Text(f"{trial.p99_ms:.1f}")
    noise = ", within noise" if trial.within_noise else ""
    yield Text(f"{trial.gain:+.0%}{noise}" if trial.gain else "")


def summary(found: Found, model: TunedModel, diff: str, *, written: bool) -> Iterator[str]:
    """What came of it."""
    if not found.in_time:
        yield "The time was over before everything was searched: --seconds gives more of it."
    if not any(trial.slices for trial in found.trials):
        yield "Nothing was measured: a request of this model takes too long for that time."
        return
    if not diff:
        which = "Nothing" if found.in_time else "Of what was measured nothing"
        yield f"{which} is better than what you have by more than measurements differ."
        return
    gain = found.gain
    yield (
        f"{found.best}: {gain.ratio - 1:+.0%} against what you have (at least {gain.low - 1:+.0%})"
    )
    yield diff
    path = model.folder / model.filename
    if written:
        yield f"{path} is written."
    elif model.signed:
        yield (
            f"{path} is not changed, for version {model.version} is signed:"
            " change it, and sign the version anew."
        )
    else:
        yield f"{path} is not changed."
