"""`penstock models tune`: the fastest configuration of a model on the machine at hand."""

from __future__ import annotations

import asyncio
import difflib
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import grpc
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penstock.commands.terminal import terminal
from penstock.commands.tune_view import LEGEND, as_table, summary
from penstock.config_sources import settings_and_sources
from penstock.cores import available_cores
from penstock.errors import ConfigError, Unavailable
from penstock.repository.folders import find_models
from penstock.tuning.candidate import Candidate
from penstock.tuning.model import TunedModel, as_json, read_model
from penstock.tuning.search import Found, Goal
from penstock.tuning.tune import Wanted
from penstock.tuning.tune import tune as run

CONCURRENCY = {Goal.THROUGHPUT: 32, Goal.LATENCY: 4}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tune")(tune)


def tune(
    model: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    repository: Annotated[
        Path | None,
        typer.Option(
            "--model-repository", metavar="FOLDER", help="Where it lies; else the settings'."
        ),
    ] = None,
    goal: Annotated[
        Goal, typer.Option("--goal", help="What is to be good: rows a second, or the p99.")
    ] = Goal.THROUGHPUT,
    p99_ms: Annotated[
        float | None,
        typer.Option("--p99-ms", min=0.001, help="What the 99th percentile must not be over."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="How long it may take, about.")
    ] = 120.0,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Requests at a time; else 32, for latency 4."),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="INPUT:SIZE,…",
            help="What requests have where an input's dims are free, such as IDS:64.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")
    ] = False,
    as_json_text: Annotated[
        bool, typer.Option("--json", help="Show JSON rather than a table.")
    ] = False,
) -> None:
    """Find out how a model runs fastest on this machine, and write that into its configuration file.

    Backends that run the same file, instances, threads, batch sizes and queue delays are tried on a server of their
    own, under load. Nothing else should run meanwhile.

    \f
    Raises PenstockError with one line for a person.
    """
    found_model = read_model(_folder(model, repository))
    wanted = Wanted(
        goal=goal,
        p99_ms=p99_ms,
        seconds=seconds,
        concurrency=concurrency or CONCURRENCY[goal],
        cores=available_cores(),
        shapes=dict(map(_shape, shapes or [])),
    )
    if not dry_run:
        found_model.check_writable()
    tuned, found = _run(found_model, wanted)
    diff = difference(tuned, found.best)
    writes = bool(diff) and not dry_run and not tuned.signed
    problem = _write(tuned, found.best) if writes else None
    _show(tuned, found, diff, written=writes and problem is None, as_json_text=as_json_text)
    # what took minutes to find is shown all the same
    if problem is not None:
        raise problem


def _write(model: TunedModel, best: Candidate) -> ConfigError | None:
    """Returns why it could not be."""
    try:
        model.write(best)
    except ConfigError as error:
        return error
    except OSError as error:
        path = model.folder / model.filename
        return ConfigError(f"{path} can't be written: {error.strerror}")
    return None


def _show(model: TunedModel, found: Found, diff: str, *, written: bool, as_json_text: bool) -> None:
    if as_json_text:
        typer.echo(_json(found, diff, written=written))
        return
    console = terminal(highlight=False)
    console.print(as_table(found))
    console.print(LEGEND, soft_wrap=True, style="dim")
    for line in summary(found, model, diff, written=written):
        console.print(line, soft_wrap=True, markup=False)


def difference(model: TunedModel, best: Candidate) -> str:
    """What would be changed in the file; empty: nothing."""
    if best == model.now:
        return ""
    name = str(model.folder / model.filename)
    old, new = (model.text or "").splitlines(), model.text_for(best).splitlines()
    return "\n".join(difflib.unified_diff(old, new, name, name, lineterm="", n=1))


def _run(model: TunedModel, wanted: Wanted) -> tuple[TunedModel, Found]:
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    started = time.monotonic()
    with _terminated_like_interrupted(), Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting a server", total=wanted.seconds)

        def on_step(step: str, candidates: Sequence[Candidate]) -> None:
            bar.update(task, description=f"{step}: {len(candidates)} to compare")

        def on_slice() -> None:
            bar.update(task, completed=time.monotonic() - started)

        try:
            return asyncio.run(run(model, wanted, on_step, on_slice))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise Unavailable(
                f"{model.folder.name!r} can't be tuned: {where}{error.strerror}"
            ) from error
        except grpc.aio.AioRpcError as error:
            text = f"the server to measure with answers no more: {error.details()}"
            raise Unavailable(text) from error


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """The server that runs for us ends with us, also where we are told to end by SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _folder(name: str, repository: Path | None) -> Path:
    given = {} if repository is None else {"model_repository": [str(repository)]}
    settings, _ = settings_and_sources(given, None)
    repositories = [repository] if repository is not None else settings.model_repository
    if not repositories:
        raise ConfigError("no model repository was given: expected --model-repository FOLDER")
    try:
        found = find_models(repositories)
    except OSError as error:
        raise ConfigError(f"{error.filename} can't be read: {error.strerror}") from error
    if name not in found:
        where = ", ".join(map(str, repositories))
        raise ConfigError(f"no model {name!r} in {where}; it has {', '.join(found) or 'none'}")
    return found[name][0]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, colon, sizes = text.rpartition(":")
    parts = sizes.split(",")
    if not (colon and name and all(part.strip().isdecimal() for part in parts)):
        raise typer.BadParameter(f"--shape {text!r}: expected INPUT:SIZE,… such as IDS:64")
    return name, tuple(map(int, parts))


def _json(found: Found, diff: str, *, written: bool) -> str:
    trials: list[dict[str, Any]] = [
        {
            "step": trial.step,
            **as_json(trial.candidate),
            "rows_s": trial.rows_s,
            "p99_ms": trial.p99_ms if trial.slices else None,
            "gain": trial.gain,
            "within_noise": trial.within_noise,
            "chosen": trial.chosen,
            "refused": trial.refused,
        }
        for trial in found.trials
    ]
    report = {
        "now": as_json(found.now),
        "best": as_json(found.best),
        "gain": found.gain.ratio - 1,
        "gain_at_least": found.gain.low - 1,
        "in_time": found.in_time,
        "written": written,
        "change": diff,
        "trials": trials,
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
