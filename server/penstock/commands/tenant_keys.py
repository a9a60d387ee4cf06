"""`penstock tenants key`: API keys. A new one is all that is on standard output, so that it can be piped on."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.access.api_keys import PREFIX
from penstock.access.key_table import DEFAULT_ROLES, CreatedKey
from penstock.access.tenant_json import created_json, key_json, time_text
from penstock.access.tenant_rows import find_in
from penstock.commands.tenant_desk import (
    AsJson,
    Config,
    File,
    Name,
    check_role_names,
    desk,
    hint,
    key_id,
    show_json,
)
from penstock.commands.tenant_view import show_keys
from penstock.commands.time_values import parse_duration

app = typer.Typer(
    help="Manage a tenant's API keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, such as psk_1a2b3c4d5e.")]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role", metavar="ROLE", help="What the key may do; user, unless given. Repeatable."
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="PATTERN",
        help="Models that the key may reach; all of the tenant's, unless given. Repeatable.",
    ),
]
Label = Annotated[str, typer.Option("--label", help="What it is for, for people.")]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="DURATION", help="How long it works, such as 90d."),
]
Overlap = Annotated[
    str,
    typer.Option(
        "--overlap", metavar="DURATION", help="How long the old key goes on beside the new one."
    ),
]


@app.command("create")
def create(
    tenant: Name,
    roles: Roles = None,
    models: Models = None,
    label: Label = "",
    expires: Expires = None,
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and show it: this once."""
    lifetime_s = None if expires is None else parse_duration(expires)
    names = tuple(roles or DEFAULT_ROLES)
    with desk(config, file) as at:
        check_role_names(at.settings, names)
        with at.trace.of("key.create", tenant, roles=", ".join(names), label=label):
            created = at.store.keys.create(
                tenant,
                roles=names,
                models=tuple(models or ("*",)),
                label=label,
                lifetime_s=lifetime_s,
            )
    _show_new(created, at.now, as_json)


@app.command("list")
def list_keys(
    tenant: Name, config: Config = None, file: File = None, as_json: AsJson = False
) -> None:
    """List a tenant's keys, also those that don't work any more."""
    with desk(config, file) as at:
        snapshot, now = at.store.read(), at.now
    find_in(snapshot, tenant)
    keys = snapshot.keys_of(tenant)
    if as_json:
        show_json([key_json(key, now) for key in keys])
    else:
        show_keys(keys, now)


@app.command("rotate")
def rotate(
    tenant: Name,
    key: Key,
    overlap: Overlap = "24h",
    expires: Expires = None,
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Make a key in place of another one, which goes on for the overlap, and show the new one: this once."""
    overlap_s = parse_duration(overlap)
    lifetime_s = None if expires is None else parse_duration(expires)
    old = key_id(key)
    with desk(config, file) as at, at.trace.of("key.rotate", tenant, key=PREFIX + old):
        created = at.store.keys.rotate(tenant, old, overlap_s=overlap_s, lifetime_s=lifetime_s)
        ends = at.store.read().keys[old].expires_at
    _show_new(created, at.now, as_json)
    hint(f"{PREFIX}{old} works until {time_text(ends)}")


@app.command("revoke")
def revoke(
    tenant: Name, key: Key, config: Config = None, file: File = None, as_json: AsJson = False
) -> None:
    """End a key, at once and for ever."""
    ended = key_id(key)
    with desk(config, file) as at, at.trace.of("key.revoke", tenant, key=PREFIX + ended):
        revoked = at.store.keys.revoke(tenant, ended)
    if as_json:
        show_json(key_json(revoked, at.now))
    else:
        # one that was revoked before stays so since then
        since = f" already, since {time_text(revoked.revoked_at)}"
        hint(f"{PREFIX}{ended} is revoked{since if revoked.revoked_at < at.now else ''}")


def _show_new(created: CreatedKey, now: float, as_json: bool) -> None:
    key = created.key
    if as_json:
        show_json(created_json(created, now))
        return
    typer.echo(created.text)
    until = f"works until {time_text(key.expires_at)}" if key.expires_at else "never expires"
    hint(
        f"{PREFIX}{key.id} is a key of tenant '{key.tenant}' with role {', '.join(key.roles)},"
        f" and {until}. It is shown only now"
    )
