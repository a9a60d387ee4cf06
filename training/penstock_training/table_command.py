"""`penstock-train table NAME FOLDER`: see `tables.py`. `penstock-train text-repository`: see `text_repository.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="penstock-train table", add_completion=False, pretty_exceptions_enable=False)
text_app = typer.Typer(
    name="penstock-train text-repository", add_completion=False, pretty_exceptions_enable=False
)


@app.command("table")
def table(
    name: Annotated[str, typer.Argument(metavar="NAME", help="digits, or topics.")],
    uri: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Where it is to lie: a path or any fsspec URL.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Give the table that is there a new version.")
    ] = False,
) -> None:
    """Make the Delta table that a recipe of ours is trained on, of what installed packages hold."""
    # scikit-learn and pyarrow take a second to import: not before the arguments are known to be good
    from penstock_training.tables import make_table

    typer.echo(make_table(name, uri, overwrite))


@text_app.command("text-repository")
def text_repository(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="Of the text classifier's run.")
    ],
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Repository to make.")],
    model: Annotated[
        str, typer.Option(help="Name by which the classifier is served; register's without it.")
    ] = "",
) -> None:
    """Make the models that take text and ask a registered text classifier, which takes tokens."""
    from penstock_training.recipes.text_repository import of_config

    typer.echo("\n".join(map(str, of_config(config, target, model))))
