"""`penstock models`: what a running server knows of its models, and models as signed and encrypted files."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from penstock.commands import artifacts, tune
from penstock.commands.client_identity import CaFile, CertFile, Identity, KeyFile
from penstock.commands.explain_view import as_report
from penstock.commands.explanation import Explanation
from penstock.commands.lineage_view import as_tree
from penstock.commands.registry_view import registry_report
from penstock.commands.terminal import terminal
from penstock.commands.v2_client import Client
from penstock.errors import Unavailable

TIMEOUT_S: Final = 30.0
WIDEST: Final = 1000

app = typer.Typer(
    help="Ask a running server about its models; sign, verify, encrypt and decrypt them. PENSTOCK_API_KEY in the "
    "environment is the API key to show a server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
artifacts.register(app)
tune.register(app)

Model = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
Version = Annotated[str, typer.Option("--version", help="The model's version.")]
Url = Annotated[str, typer.Option("--url", help="Where the server is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Show JSON rather than tables.")]


@app.command("list")
def list_models(
    url: Url = "http://127.0.0.1:8000",
    as_json: AsJson = False,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """List all models and their versions, also those that can't be served."""
    index = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file)).index()
    if as_json:
        typer.echo(_json(index))
        return
    table = Table("model", "version", "state", "devices", "reason")
    for entry in index:
        row = (entry.name, entry.version, entry.state, entry.devices, entry.reason)
        table.add_row(*map(Text, row))
    terminal().print(table)


@app.command("registry")
def registry(
    url: Url = "http://127.0.0.1:8000",
    as_json: AsJson = False,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Show what comes from a registry: what references mean, what of that is there, and what is wrong."""
    found = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file)).registry()
    if as_json:
        typer.echo(_json(found))
        return
    terminal().print(*registry_report(found), sep="\n")


@app.command("explain")
def explain(
    model: Model,
    version: Version = "",
    url: Url = "http://127.0.0.1:8000",
    as_json: AsJson = False,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Show how a model is scheduled: its speed, its queue, and what was decided and refused.

    \f
    Raises PenstockError with one line for a person.
    """
    found = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file)).explain(
        model, version
    )
    if as_json:
        typer.echo(_json(found))
        return
    try:
        explanation = msgspec.convert(found, Explanation)
    except msgspec.ValidationError as error:
        raise Unavailable(f"{url} explains in a way that is not known here: {error}") from error
    terminal().print(as_report(explanation))


@app.command("lineage")
def lineage(
    model: Model,
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", help="Its version; none: what is served.")
    ] = "",
    everything: Annotated[
        bool,
        typer.Option("--all", help="Show parameters, metrics of the machine, and all files too."),
    ] = False,
    url: Url = "http://127.0.0.1:8000",
    as_json: AsJson = False,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Show where a model version comes from: who promoted it, gates, data, code, run, metrics, signature and files.

    \f
    Raises PenstockError with one line for a person.
    """
    found = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file)).lineage(
        model, version
    )
    if as_json:
        typer.echo(_json(found))
        return
    try:
        tree = as_tree(found, everything=everything)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"{url} tells a lineage in a way that is not known here: {error!r}"
        ) from error
    console = terminal(highlight=False)
    if not console.is_terminal:
        # a file or a pipe has no width
        console.width = WIDEST
    console.print(tree)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
