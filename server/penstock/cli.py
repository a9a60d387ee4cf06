"""`penstock`: the command line. A command's module is imported when the command is run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final

import typer

from penstock import __version__
from penstock.commands.help_text import make_plain
from penstock.errors import ConfigError, PenstockError
from penstock.quiet import keep_quiet

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

app = typer.Typer(
    name="penstock",
    help="A high-performance inference serving runtime that speaks Triton's protocols.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# the commands parse their arguments themselves: here they are only passed on
_PASS_ON: Final = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show the version."
    ),
) -> None:
    """Only what every command has."""


@app.command("version")
def show_version() -> None:
    """Show the version."""
    _show_version(True)


@app.command("serve", context_settings=_PASS_ON)
def serve(context: typer.Context) -> None:
    """Serve a model repository over HTTP and gRPC."""
    module = importlib.import_module("penstock.commands.serve")
    _run("serve", module.serve, module.rewrite_arguments(context.args))


@app.command("check", context_settings=_PASS_ON)
def check(context: typer.Context) -> None:
    """Check a model repository: what would be served, what is wrong, and what has no effect."""
    module = importlib.import_module("penstock.commands.check")
    _run("check", module.check, context.args)


@app.command("infer", context_settings=_PASS_ON)
def infer(context: typer.Context) -> None:
    """Send one request to a running server, and show what comes back."""
    module = importlib.import_module("penstock.commands.infer")
    _run("infer", module.infer, context.args)


@app.command("models", context_settings=_PASS_ON)
def models(context: typer.Context) -> None:
    """List a running server's models, or explain how one is scheduled; sign, verify, encrypt and decrypt models."""
    module = importlib.import_module("penstock.commands.models")
    raise typer.Exit(_call(module.app, "penstock models", context.args))


@app.command("rollout", context_settings=_PASS_ON)
def rollout(context: typer.Context) -> None:
    """Try a new version of a model on a share of the requests, and keep it or go back."""
    module = importlib.import_module("penstock.commands.rollout")
    raise typer.Exit(_call(module.app, "penstock rollout", context.args))


@app.command("certs", context_settings=_PASS_ON)
def certs(context: typer.Context) -> None:
    """A small private CA: make it, issue certificates, renew and list them."""
    module = importlib.import_module("penstock.commands.certs")
    raise typer.Exit(_call(module.app, "penstock certs", context.args))


@app.command("tenants", context_settings=_PASS_ON)
def tenants(context: typer.Context) -> None:
    """Manage tenants, their API keys and quotas."""
    module = importlib.import_module("penstock.commands.tenants")
    raise typer.Exit(_call(module.app, "penstock tenants", context.args))


@app.command("audit", context_settings=_PASS_ON)
def audit(context: typer.Context) -> None:
    """Verify and show the audit log, and make the key that signs it."""
    module = importlib.import_module("penstock.commands.audit")
    raise typer.Exit(_call(module.app, "penstock audit", context.args))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 1 failed, 2 used wrongly, 130 interrupted."""
    keep_quiet()
    try:
        return _call(app, "penstock", sys.argv[1:] if arguments is None else arguments)
    except typer.TyperException as error:
        # typer's own errors know their code: 2 for usage
        return _fail(error.format_message().replace("Value error, ", ""), error.exit_code)
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except PenstockError as error:
        return _fail(str(error), EXIT_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED


def _run(name: str, command: object, arguments: Sequence[str]) -> None:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(command)  # type: ignore[type-var]
    raise typer.Exit(_call(single, f"penstock {name}", arguments))


def _call(program: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    command = typer.main.get_command(program)
    make_plain(command)
    code = command(args=list(arguments), prog_name=name, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    typer.echo(f"penstock: {message}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
