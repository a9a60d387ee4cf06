"""`penstock check`: whether a repository's models can be served, what has no effect, where each value comes from."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from penstock.backends.registry import backend_for
from penstock.commands.check_report import CheckReport, ModelLine, VersionLine, model_line
from penstock.commands.check_view import as_text
from penstock.commands.terminal import terminal
from penstock.config import Settings
from penstock.config_sources import settings_and_sources
from penstock.errors import ConfigError, PenstockError
from penstock.logs import configure_logging
from penstock.model_config import ConfigDict
from penstock.registry.entries import find_entries
from penstock.repository.checks.artifact_check import Copies, copies
from penstock.repository.checks.ensemble_check import Known, check_ensembles
from penstock.repository.checks.findings import Finding, error, warning
from penstock.repository.checks.model_check import CheckedModel, check_model, placed
from penstock.repository.dependencies import needs_of
from penstock.repository.folders import find_models
from penstock.supervisor.trial import Trial, trial

EXIT_PROBLEMS: Final = 1
MODEL_FILES: Final = ("config.pbtxt", "config.yaml")


class Output(StrEnum):
    """How the report is written."""

    TEXT = "text"
    JSON = "json"


def check(
    repository: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL_REPOSITORY]",
            help="Folder of models, in Triton's layout; else the settings'.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Only these, in detail.")
    ] = None,
    load: Annotated[
        bool, typer.Option("--load/--no-load", help="Load each model for real, in a worker.")
    ] = True,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="How the report is written.")
    ] = Output.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the check too.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show each value, and where it comes from.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Settings file, in place of ./penstock.toml."
        ),
    ] = None,
) -> None:
    """Check a model repository: what would be served, what is wrong, and what has no effect.

    \f
    Exits with 0 (all can be served), 1 (some can't; with --strict: there are warnings) or 2 (used wrongly).
    """
    given = {} if repository is None else {"model_repository": [str(repository)]}
    settings, sources = settings_and_sources(given, config)
    configure_logging(msgspec.structs.replace(settings.log_settings, info=False), sys.stderr)
    repositories = [repository] if repository is not None else settings.model_repository
    folders = _folders(repositories, models or [])
    checked = [check_model(folder, settings) for folder in folders]
    needed = _needed(repositories, checked) if load else []
    with copies(settings, [*checked, *needed]) as copied:
        loaded = asyncio.run(_load_all(settings, [*checked, *needed], copied)) if load else {}
    lines = [_line(model, loaded, tried=load) for model in checked]
    report = CheckReport.of(_shown(repositories), lines, settings, sources)
    if output is Output.JSON:
        text = msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
        typer.echo(text)
    else:
        console = terminal(highlight=False)
        for part in as_text(report, details=verbose or bool(models)):
            console.print(part, soft_wrap=True)
    if report.errors or (strict and report.warnings):
        raise typer.Exit(EXIT_PROBLEMS)


def _shown(repositories: Sequence[Path]) -> str:
    return ", ".join(map(str, repositories))


def _folders(repositories: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The folders of the models to check. Raises ConfigError on what is no repository, or has no such model."""
    if not repositories:
        raise ConfigError("no model repository was given: penstock check FOLDER")
    found: dict[str, list[Path]] = {}
    for repository in repositories:
        for name, folders in _models_in(repository).items():
            found.setdefault(name, []).extend(folders)
    where = _shown(repositories)
    entries = find_entries(repositories)
    for entry in entries:
        if entry.problem:
            raise ConfigError(entry.problem)
    if not found and entries:
        taken = ", ".join(entry.name for entry in entries)
        raise PenstockError(f"{where} holds no models of its own: {taken} come from a registry")
    if not found:
        raise PenstockError(f"{where} holds no models; expected a folder for each model")
    for name in names:
        if name not in found:
            raise ConfigError(f"no model {name!r} in {where}; it has {', '.join(found)}")
    for name, folders in found.items():
        if len(folders) > 1:
            raise ConfigError(f"model {name!r} is in {_shown(folders)}: expected it in only one")
    return [folders[0] for name, folders in found.items() if name in names or not names]


def _models_in(repository: Path) -> dict[str, list[Path]]:
    try:
        found = find_models([repository])
    except NotADirectoryError:
        raise ConfigError(f"{repository} is a file; expected a folder of models") from None
    except FileNotFoundError:
        raise ConfigError(f"{repository}: there is no such folder") from None
    except OSError as problem:
        raise ConfigError(f"{repository} can't be read: {problem.strerror}") from problem
    if any((repository / name).exists() for name in MODEL_FILES):
        raise ConfigError(
            f"{repository} is a model's own folder; expected the folder that it lies in, {repository.absolute().parent}"
        )
    return found


def _needed(repositories: Sequence[Path], models: Sequence[CheckedModel]) -> list[CheckedModel]:
    """Models that some of these, or of the others that are returned, need, and that are not among them."""
    found = find_models(repositories)
    names = {model.name for model in models}
    needed: list[CheckedModel] = []
    fresh = list(models)
    while fresh:
        wanted = {need for model in fresh for need in needs_of(model.config)} - names
        names |= wanted
        fresh = [check_model(found[name][0]) for name in sorted(wanted) if name in found]
        needed += fresh
    return needed


async def _load_all(settings: Settings, models: Sequence[CheckedModel], copied: Copies) -> Known:
    plain = [model for model in models if not model.failed and not model.is_ensemble]
    wanted = [(model, v) for model in plain for v in model.served]
    async with trial(settings) as running:
        results = await asyncio.gather(*(_load(running, copied, *each) for each in wanted))
    keys = [(model.name, version) for model, version in wanted]
    return check_ensembles(models, dict(zip(keys, results, strict=True)))


async def _load(
    running: Trial, copied: Copies, model: CheckedModel, version: int
) -> ConfigDict | Finding:
    assert model.config is not None
    given = {"name": model.name} if model.located is None else model.config
    folder = copied.get((model.name, version), model.folder.absolute())
    try:
        backend = model.backend or backend_for(model.config, folder / str(version))
        config = {**given, "backend": backend}
        tried = await running.load(folder, version, config)
    except PenstockError as problem:
        found = placed(str(problem))
        text = f"version {version} can't be loaded: {found.text}"
        if found.file:
            return error(text, found.file, found.line)
        place = model.place_named_in(str(problem)) or (str(model.folder / str(version)), 0)
        return error(text, *place)
    for path, reason in tried.fallbacks:
        text = f"version {version} does not run as asked for: {reason}"
        place = model.line(path) if path else (str(model.folder / str(version)), 0)
        model.findings.append(warning(text, *place))
    return tried.config


def _line(model: CheckedModel, loaded: Known, *, tried: bool) -> ModelLine:
    complete: ConfigDict | None = None
    versions = []
    findings = list(model.findings)
    for version in model.served:
        result = loaded.get((model.name, version))
        if isinstance(result, Finding):
            findings.insert(0, result)
            versions.append(VersionLine(version, "failed"))
        elif result is not None:
            complete = result
            versions.append(VersionLine(version, "loaded"))
        else:
            versions.append(VersionLine(version, "not tried"))
    return model_line(model, findings, versions, complete, tried=tried)
