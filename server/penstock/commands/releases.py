"""`penstock models trust`: which releases of models were served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from penstock.audit.event import AuditEvent
from penstock.commands.command_audit import command_log, recorded, who
from penstock.commands.terminal import terminal
from penstock.config_sources import load_settings
from penstock.errors import InvalidRequest
from penstock.trust.releases import Releases

app = typer.Typer(help="The record of releases that were served.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file, in place of ./penstock.toml."),
]
StateFile = Annotated[
    Path | None, typer.Option("--state-file", help="The record, in place of the settings' own.")
]


@app.command("list")
def list_releases(config: ConfigFile = None, state_file: StateFile = None) -> None:
    """List the newest release of each model version that was ever served."""
    table = Table("model", "version", "serial", "digest")
    for model, versions in sorted(_releases(config, state_file).all().items()):
        for number, served in sorted(versions.items(), key=lambda item: int(item[0])):
            table.add_row(model, number, str(served.serial), served.digest[:16])
    terminal().print(table)


@app.command("reset")
def reset(
    model: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    version: Annotated[int | None, typer.Option("--version", help="Only this version.")] = None,
    config: ConfigFile = None,
    state_file: StateFile = None,
) -> None:
    """Forget which releases of a model were served, so that an older one may be.

    \f
    Raises InvalidRequest where it is not known, Unavailable where that can't be recorded.
    """
    settings = load_settings({}, config)
    path = state_file or settings.artifacts.state_path
    about = AuditEvent(
        action="trust.reset",
        outcome="allowed",
        principal=who(),
        model=model,
        details={} if version is None else {"version": str(version)},
    )
    with command_log(settings) as log, recorded(log, about):
        if not Releases(path).reset(model, version):
            what = model if version is None else f"{model}/{version}"
            raise InvalidRequest(f"no release of {what!a} was served")
    typer.echo("forgotten")


def _releases(config: Path | None, state_file: Path | None) -> Releases:
    return Releases(state_file or load_settings({}, config).artifacts.state_path)
