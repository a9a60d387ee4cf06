"""What all of `penstock tenants` needs: the file that the settings name, and a trace of what is done to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from penstock.access.api_keys import PREFIX
from penstock.access.tenant_audit import recorded_in
from penstock.access.tenant_changes import ChangeTrace
from penstock.access.tenants import TenantStore
from penstock.commands.command_audit import command_log, never_silently_new, who
from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import InvalidRequest

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file, in place of ./penstock.toml."),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--access-tenants-file",
        metavar="FILE",
        help="The file of tenants, in place of what the settings say.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Show JSON rather than tables.")]
Name = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]


class Desk(NamedTuple):
    """Where tenants are managed."""

    store: TenantStore
    trace: ChangeTrace
    settings: Settings
    now: float


@contextmanager
def desk(config: Path | None, file: Path | None, *, create: bool = False) -> Iterator[Desk]:
    """The store that a server with these settings goes by.

    Raises ConfigError for settings and files that can't be used, Unavailable for a file that can't be now.
    """
    flags: Mapping[str, Any] = {} if file is None else {"access_tenants_file": file}
    settings = load_settings(flags, config)
    with ExitStack() as open_ones:
        store = TenantStore(settings.access.tenants_path, create=create)
        open_ones.callback(store.close)
        log = open_ones.enter_context(command_log(settings))
        record = never_silently_new(log, recorded_in(log))
        trace = ChangeTrace(who(), record)
        yield Desk(store, trace, settings, time.time())


def check_role_names(settings: Settings, roles: tuple[str, ...]) -> None:
    """Raises InvalidRequest for a role that a server with these settings does not know."""
    known = settings.access.all_roles
    for role in roles:
        if role not in known:
            raise InvalidRequest(
                f"there is no role '{role[:80]}', expected one of {', '.join(known)}"
            )


def key_id(text: str) -> str:
    """A key's id, with or without `psk_`. Raises InvalidRequest for a whole key."""
    bare = text.removeprefix(PREFIX)
    if "_" in bare:
        # it would be in the shell's history, and in the audit log
        raise InvalidRequest("expected a key's id, such as psk_1a2b3c4d5e, not the key itself")
    return bare


def show_json(value: object) -> None:
    """For programs."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def hint(text: str) -> None:
    """For people; what a program may read is on standard output alone."""
    typer.echo(text, err=True)
