"""`penstock-train CONFIG.toml`: trains what the configuration says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final

import typer

from penstock.errors import ConfigError, PenstockError
from penstock.quiet import keep_quiet
from penstock_training.config_sources import load_config

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
COMMANDS: Final = {
    "register": ("penstock_training.register_command", "app"),
    "table": ("penstock_training.table_command", "app"),
    "text-repository": ("penstock_training.table_command", "text_app"),
}
"""What comes in a configuration's place → the module and its Typer."""

app = typer.Typer(name="penstock-train", add_completion=False, pretty_exceptions_enable=False)


@app.command("run")
def run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="What to train, on what, and how.")
    ],
    engine: Annotated[
        str | None,
        typer.Option(metavar="torchrun|ray", help="What starts the processes (run.engine)."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="How many of them, over all machines (run.processes).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in run.folder.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting, such as optimizer.learning_rate=3e-4."
        ),
    ] = None,
) -> None:
    """Train, on any number of processes. Ctrl-C stops after a checkpoint. `penstock-train register RUN` registers a run
    that is trained, `penstock-train table` makes example tables, `penstock-train text-repository` the models in front
    of a text classifier."""
    overrides = list(settings or ())
    if engine is not None:
        overrides.append(f"run.engine={engine}")
    if processes is not None:
        overrides.append(f"run.processes={processes}")
    loaded = load_config(config, overrides)
    # torch takes two seconds to import: not before the configuration is known to be good
    from penstock_training.launch import launch

    outcome = launch(loaded, config, resume=resume)
    if outcome.status == "stopped":
        raise typer.Exit(EXIT_INTERRUPTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 1 failed, 2 used wrongly, 130 stopped before the end."""
    keep_quiet()
    given = list(sys.argv[1:] if arguments is None else arguments)
    found, name = app, "penstock-train"
    if given and given[0] in COMMANDS:
        module, attribute = COMMANDS[given[0]]
        found, name = getattr(import_module(module), attribute), f"{name} {given.pop(0)}"
    command = typer.main.get_command(found)
    try:
        code = command(args=given, prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except PenstockError as error:
        return _fail(str(error), EXIT_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    typer.echo(f"penstock-train: {message}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
