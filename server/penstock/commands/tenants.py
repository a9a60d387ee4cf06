"""`penstock tenants`: who may use the servers that go by a file of tenants. They need no restart."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from penstock.access.tenant_json import tenant_json, usage_json, whole_json
from penstock.access.tenant_records import Tenant
from penstock.access.tenant_rows import find_in
from penstock.commands import tenant_keys, tenant_quotas
from penstock.commands.tenant_desk import AsJson, Config, File, Name, desk, hint, show_json
from penstock.commands.tenant_view import show_tenant, show_tenants, show_usage
from penstock.commands.time_values import parse_since
from penstock.errors import InvalidRequest

app = typer.Typer(
    help="Manage tenants, their API keys and quotas. A running server goes by changes within a second.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(tenant_keys.app, name="key")
app.add_typer(tenant_quotas.app, name="quota")

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="PATTERN",
        help="Models that the tenant may reach at all; all, unless given. Repeatable.",
    ),
]
Weight = Annotated[
    float | None, typer.Option("--weight", help="The tenant's share of a busy model; 1 for all.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
Since = Annotated[
    str, typer.Option("--since", metavar="DAY", help="First day, such as 2026-07-01 or 30d.")
]


@app.command("create")
def create(
    tenant: Name,
    models: Models = None,
    weight: Weight = None,
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant, and the file of tenants if there is none."""
    patterns = tuple(models or ("*",))
    with desk(config, file, create=True) as at, at.trace.of("create", tenant):
        made = at.store.create(tenant, models=patterns, weight=weight)
    _tell(made, as_json, f"tenant '{tenant}' is created: `penstock tenants key create {tenant}`")


@app.command("list")
def list_tenants(config: Config = None, file: File = None, as_json: AsJson = False) -> None:
    """List all tenants."""
    with desk(config, file) as at:
        snapshot, now = at.store.read(), at.now
    if as_json:
        show_json([tenant_json(tenant) for tenant in snapshot.tenants.values()])
    else:
        show_tenants(snapshot, now)


@app.command("show")
def show(tenant: Name, config: Config = None, file: File = None, as_json: AsJson = False) -> None:
    """Show a tenant with its keys and limits."""
    with desk(config, file) as at:
        snapshot, now = at.store.read(), at.now
    found = find_in(snapshot, tenant)
    if as_json:
        show_json(whole_json(found, snapshot, now))
    else:
        show_tenant(found, snapshot, now)


@app.command("enable")
def enable(tenant: Name, config: Config = None, file: File = None, as_json: AsJson = False) -> None:
    """Take a disabled tenant's requests again."""
    with desk(config, file) as at, at.trace.of("enable", tenant):
        changed = at.store.change(tenant, disabled=False)
    _tell(changed, as_json, f"tenant '{tenant}' is enabled")


@app.command("disable")
def disable(
    tenant: Name, config: Config = None, file: File = None, as_json: AsJson = False
) -> None:
    """Refuse all that is asked in a tenant's name, until it is enabled."""
    with desk(config, file) as at, at.trace.of("disable", tenant):
        changed = at.store.change(tenant, disabled=True)
    _tell(changed, as_json, f"tenant '{tenant}' is disabled")


@app.command("delete")
def delete(tenant: Name, yes: Yes = False, config: Config = None, file: File = None) -> None:
    """Delete a tenant with its keys, limits and usage."""
    with desk(config, file) as at:
        find_in(at.store.read(), tenant)
        _make_sure(tenant, yes)
        with at.trace.of("delete", tenant):
            at.store.delete(tenant)
    hint(f"tenant '{tenant}' is deleted")


@app.command("weight")
def weigh(
    tenant: Name,
    weight: Annotated[str, typer.Argument(metavar="WEIGHT", help="A number, or `default`.")],
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Set a tenant's share of busy models."""
    number = _parse_weight(weight)
    with desk(config, file) as at, at.trace.of("weight", tenant, weight=weight):
        changed = at.store.change(tenant, weight=number)
    _tell(changed, as_json, f"tenant '{tenant}' has weight {weight}")


@app.command("models")
def reach(
    tenant: Name,
    models: Annotated[list[str], typer.Argument(metavar="PATTERN...", help="`*` for all.")],
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Set which models a tenant may reach at all, whatever its keys and roles say."""
    patterns = tuple(models)
    with desk(config, file) as at, at.trace.of("models", tenant, models=", ".join(patterns)):
        changed = at.store.change(tenant, models=patterns)
    _tell(changed, as_json, f"tenant '{tenant}' may reach {', '.join(changed.models)}")


@app.command("capture")
def allow_capture(
    tenant: Name,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN...]", help="`*` for all.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Of none, from now on.")] = False,
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Allow that a tenant's requests to models are kept for training, where the server captures any."""
    patterns = tuple(models or ())
    if none == bool(patterns):
        raise InvalidRequest("expected patterns of models, `*` for all, or --none")
    with desk(config, file) as at, at.trace.of("capture", tenant, captured=_list(patterns)):
        changed = at.store.change(tenant, captured=patterns)
    _tell(changed, as_json, f"requests of tenant '{tenant}' may be kept: {_list(changed.captured)}")


@app.command("usage")
def usage(
    tenant: Annotated[
        str | None, typer.Argument(metavar="[TENANT]", help="All, unless given.")
    ] = None,
    since: Since = "30d",
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Show what was asked in tenants' names, by day (UTC) and model."""
    with desk(config, file) as at:
        lines = at.store.usage(tenant, parse_since(since, at.now))
        if tenant is not None and not lines:
            # tokens name tenants that are not in the file: those have usage all the same
            find_in(at.store.read(), tenant)
    if as_json:
        show_json(usage_json(lines))
    else:
        show_usage(lines)


def _list(patterns: tuple[str, ...]) -> str:
    return ", ".join(patterns) or "none"


def _parse_weight(text: str) -> float | None:
    if text == "default":
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"a weight is a number, or `default`; got {text[:80]!r}") from None


def _make_sure(tenant: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(f"deleting '{tenant}' can't be undone: expected --yes")
    typer.confirm(f"Delete '{tenant}' with its keys, limits and usage?", abort=True, err=True)


def _tell(tenant: Tenant, as_json: bool, text: str) -> None:
    if as_json:
        show_json(tenant_json(tenant))
    else:
        hint(text)
