"""`penstock infer`: one prediction of a running server, from files or values given as arguments."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from penstock.commands.client_identity import CaFile, CertFile, Identity, KeyFile
from penstock.commands.input_values import read_values
from penstock.commands.output_view import as_json, as_tables
from penstock.commands.terminal import terminal
from penstock.commands.v2_client import Client, InputData, ModelMetadata
from penstock.model_config import ModelConfig


class OutputFormat(StrEnum):
    """How the answer is shown."""

    TABLE = "table"
    JSON = "json"


Model = Annotated[str, typer.Argument(help="The model's name.")]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]VALUE",
        help="A file (.png .jpg .npy .json .txt), JSON, plain text for BYTES, or - for standard"
        " input. NAME may be left out where the model has one input. Several make a batch.",
    ),
]
Url = Annotated[str, typer.Option("--url", help="Where the server is.")]
Version = Annotated[str, typer.Option("--version", help="The model's version.")]
Top = Annotated[
    int, typer.Option("--top", min=0, help="Classes to show where there are labels; 0: numbers.")
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")]
Format = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to show the answer.")]


def infer(
    model: Model,
    inputs: Inputs,
    url: Url = "http://127.0.0.1:8000",
    version: Version = "",
    top: Top = 3,
    timeout_s: Timeout = 30.0,
    output: Format = OutputFormat.TABLE,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Ask a running server for a prediction: penstock infer digits --input seven.png

    PENSTOCK_API_KEY in the environment is the API key to show.

    \f
    Raises PenstockError with one line for a person; typer.BadParameter where inputs are not clear.
    """
    client = Client(url, timeout_s, Identity.of(ca_file, cert_file, key_file))
    metadata = client.metadata(model, version)
    config = client.config(model, version)
    values = values_by_input(inputs, metadata, config)
    tensors = [
        InputData(t.name, t.datatype, read_values(values[t.name], t, sys.stdin.buffer))
        for t in metadata.inputs
        if t.name in values
    ]
    classes = classes_to_ask(metadata, config, top)
    started = time.perf_counter()
    prediction = client.infer(model, version, tensors, classes)
    elapsed_ms = (time.perf_counter() - started) * 1e3
    classified = frozenset(name for name, count in classes.items() if count)
    if output is OutputFormat.JSON:
        typer.echo(as_json(prediction, model, classified))
    else:
        terminal().print(as_tables(prediction, model, classified, elapsed_ms))


def values_by_input(
    arguments: Sequence[str], metadata: ModelMetadata, config: ModelConfig | None
) -> dict[str, list[str]]:
    """Each input's values, of arguments `NAME=VALUE` and `VALUE`.

    Raises typer.BadParameter when it isn't clear which input is meant, or one is missing.
    """
    names = [tensor.name for tensor in metadata.inputs]
    values: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in names:
            values.setdefault(name, []).append(value)
        elif len(names) == 1:
            values.setdefault(names[0], []).append(argument)
        else:
            raise typer.BadParameter(
                f"{argument!r}: say which input, NAME=VALUE; {metadata.name} has {', '.join(names)}"
            )
    optional = {tensor.name for tensor in config.input if tensor.optional} if config else set()
    missing = [name for name in names if name not in values and name not in optional]
    if missing:
        raise typer.BadParameter(f"{metadata.name} needs --input {missing[0]}=VALUE too")
    return values


def classes_to_ask(
    metadata: ModelMetadata, config: ModelConfig | None, top: int
) -> Mapping[str, int]:
    """Each output → how many classes to ask for: `top` where it has labels, else 0."""
    labelled = {tensor.name for tensor in config.output if tensor.label_filename} if config else ()
    return {o.name: top if o.name in labelled else 0 for o in metadata.outputs}
