"""`penstock audit`: verifies and shows the audit log, and makes the keys that sign it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from penstock.audit.reading import (
    MAX_LIMIT,
    OUTCOMES,
    Filter,
    as_dict,
    parse_outcome,
    parse_time,
    records,
)
from penstock.audit.signing import Signer, Verifier, public_keys
from penstock.audit.verify import Verdict
from penstock.audit.verify import verify as verify_log
from penstock.commands.audit_view import show_records
from penstock.commands.new_files import write_new
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.logs import without_controls
from penstock.wording import counted

DAMAGED: Final = 1

app = typer.Typer(
    help="Verify and show the audit log, and make the key that signs it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="The log's folder; else the settings'.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file to take it from.")]
AsJson = Annotated[bool, typer.Option("--json", help="Show JSON rather than text.")]
Keys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="PEM of the keys to be believed. Repeatable."),
]
AtLeast = Annotated[
    str, typer.Option("--at-least", metavar="SEQ:HASH", help="A record that has to be there.")
]


@app.command("verify")
def verify(
    folder: Folder = None,
    public_key: Keys = None,
    at_least: AtLeast = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find whatever has been changed in the log.

    Exit code: 0 it is whole, 1 it is not, 2 it could not be checked.

    \f
    Raises ConfigError.
    """
    verdict = verify_log(_folder(folder, config), _keys(public_key or ()), _anchor(at_least))
    if as_json:
        shown = {"whole": verdict.is_whole, **msgspec.to_builtins(verdict)}
        typer.echo(json.dumps(shown, indent=2))
    else:
        _show(verdict)
    if not verdict.is_whole:
        raise typer.Exit(DAMAGED)


@app.command("show")
def show(
    folder: Folder = None,
    tenant: Annotated[str, typer.Option("--tenant", help="Of this tenant.")] = "",
    action: Annotated[
        str, typer.Option("--action", help="This action, or all that begin with it: model.")
    ] = "",
    outcome: Annotated[
        str, typer.Option("--outcome", metavar="|".join(OUTCOMES), help="How it ended, or began.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", help="After this record's number, or from this time on.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MAX_LIMIT, help="So many at most.")
    ] = 100,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the last records, or the first after --since. It does not verify them.

    \f
    Raises ConfigError, InvalidRequest.
    """
    is_number = since.isascii() and since.isdigit()
    wanted = Filter(
        tenant=tenant,
        action=action,
        outcome=parse_outcome(outcome),
        since_seq=int(since) if is_number else 0,
        since_time="" if is_number or not since else parse_time(since),
        limit=limit,
    )
    found = records(_folder(folder, config), wanted)
    if as_json:
        for record in found:
            # in ASCII: a terminal acts on more characters than JSON escapes
            typer.echo(json.dumps(as_dict(record), separators=(",", ":")))
    else:
        show_records(found)


@app.command("keygen")
def keygen(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="File for the new private key.")],
) -> None:
    """Make the key that signs: KEY, which nobody else may read, and KEY.pub for those who verify.

    \f
    Raises ConfigError when there is such a file, or it can't be written.
    """
    signer = Signer.generate()
    public = key.with_name(key.name + ".pub")
    try:
        write_new(key, signer.private_pem(), 0o600)
        write_new(public, signer.verifier.pem(), 0o644)
    except FileExistsError as error:
        raise ConfigError(f"{error.filename}: is there already, and is not overwritten") from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: can't be written: {error.strerror}") from error
    typer.echo(f"key {signer.id}: {key}, public key: {public}")
    typer.echo(f'settings: [audit] sign_key = "file:{key.absolute()}"')


def _folder(given: Path | None, config: Path | None) -> Path:
    if given is not None:
        return given
    folder = load_settings({}, config).audit.folder
    if folder is None:
        raise ConfigError("no folder is given, and the settings have no audit.folder")
    return folder


def _keys(paths: Sequence[Path]) -> list[Verifier]:
    keys: list[Verifier] = []
    for path in paths:
        try:
            keys += public_keys(path.read_bytes(), str(path))
        except OSError as error:
            raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    return keys


def _anchor(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text)
    if match is None:
        raise ConfigError(
            f"--at-least {text[:100]}: expected SEQ:HASH, as `verify` shows it at its end"
        )
    return int(match[1]), match[2]


def _show(verdict: Verdict) -> None:
    for problem in verdict.problems:
        typer.echo(without_controls(str(problem)), err=True)
    if verdict.more_problems:
        typer.echo(f"and {counted(verdict.more_problems, 'more problem')}", err=True)
    for note in verdict.notes:
        typer.echo(f"note: {without_controls(note)}")
    found = (
        f"{counted(verdict.records, 'record')} in {counted(verdict.files, 'file')}",
        counted(verdict.checkpoints, "checkpoint"),
        f"signed up to record {verdict.signed_up_to}",
    )
    typer.echo(f"{'whole' if verdict.is_whole else 'DAMAGED'}: {', '.join(found)}")
    typer.echo(f"last record {verdict.anchor}")
    sys.stdout.flush()
