"""`penstock-train register RUN`: see `register_again.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="penstock-train register", add_completion=False, pretty_exceptions_enable=False
)


@app.command("register")
def register(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The run's id in MLflow, or its folder.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG.toml",
            help="Configuration whose tables tracking and register hold instead of the run's own.",
        ),
    ] = None,
    uri: Annotated[
        str, typer.Option(help="MLflow that knows the id; MLFLOW_TRACKING_URI without it.")
    ] = "",
) -> None:
    """Register a run that is trained: when the registry was away, the process was killed, or other gates are to hold.

    A version that it has already is completed; there is never a second one."""
    # torch takes seconds to import: not before the arguments are known to be good
    from penstock_training.register_again import register_again

    registered = register_again(run, config, uri)
    typer.echo(str(registered or "the run has no [register]: its report is made, and nothing else"))
