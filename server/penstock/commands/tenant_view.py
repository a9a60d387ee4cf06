"""Tables of `penstock tenants`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from penstock.access.api_keys import PREFIX
from penstock.access.limits import NAMES, Limits
from penstock.access.tenant_json import day_text, time_text
from penstock.access.tenant_records import ApiKey, Tenant, TenantSnapshot, Usage
from penstock.commands.terminal import terminal

WIDEST: Final = 1000
STYLES: Final = {
    "active": "green",
    "enabled": "green",
    "expired": "yellow",
    "revoked": "red",
    "disabled": "red",
}


def show_tenants(snapshot: TenantSnapshot, now: float) -> None:
    """A line each."""
    table = Table("tenant", _whole("state"), "weight", "models", "keys", "limits", "created")
    for tenant in snapshot.tenants.values():
        active = sum(key.state(now) == "active" for key in snapshot.keys_of(tenant.name))
        table.add_row(
            Text(tenant.name),
            _state(tenant),
            _weight(tenant),
            Text(", ".join(tenant.models)),
            str(active),
            str(sum(len(each.given()) for each in snapshot.limits_of(tenant.name).values())),
            day_of(tenant.created_at),
        )
    terminal().print(table)


def show_tenant(tenant: Tenant, snapshot: TenantSnapshot, now: float) -> None:
    """All that is known of one."""
    console = terminal()
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("tenant", Text(tenant.name, "bold")),
        ("state", _state(tenant)),
        ("weight", Text(_weight(tenant))),
        ("models", Text(", ".join(tenant.models))),
        ("captured", Text(", ".join(tenant.captured) or "none")),
        ("created", Text(time_text(tenant.created_at))),
    ):
        facts.add_row(Text(name, "dim"), value)
    console.print(facts)
    if keys := snapshot.keys_of(tenant.name):
        show_keys(keys, now)
    if limits := snapshot.limits_of(tenant.name):
        show_limits(limits)


def show_keys(keys: Iterable[ApiKey], now: float) -> None:
    """A line each; more where that is too narrow for a table: nothing of a key is ever cut."""
    console = terminal(highlight=False)
    known = list(keys)
    table = Table(_whole("key"), _whole("state"), _whole("roles"))
    for name in ("models", "label"):
        table.add_column(name, overflow="fold")
    table.add_column("expires", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for key in known:
        table.add_row(
            PREFIX + key.id,
            _key_state(key, now),
            Text("\n".join(key.roles)),
            Text(" ".join(key.models)),
            Text(key.label),
            _end_of(key),
            _last_use_of(key),
        )
    if (
        Measurement.get(console, console.options.update(width=WIDEST), table).minimum
        <= console.width
    ):
        console.print(table)
        return
    for key in known:
        console.print(_key_lines(key, now), soft_wrap=True)


def _key_lines(key: ApiKey, now: float) -> Text:
    lines = Text.assemble(PREFIX + key.id, "  ", _key_state(key, now), f"  {' '.join(key.roles)}")
    more = [f"expires {_end_of(key)}, last used {_last_use_of(key)}"]
    more.append(f"models {' '.join(key.models)}")
    if key.label:
        more.append(f"label {key.label}")
    return lines.append("".join(f"\n    {line}" for line in more))


def _key_state(key: ApiKey, now: float) -> Text:
    state = key.state(now)
    return Text(state, STYLES[state])


def _end_of(key: ApiKey) -> str:
    return time_text(key.expires_at) if key.expires_at else "never"


def _last_use_of(key: ApiKey) -> str:
    return day_text(key.last_used_day) if key.last_used_day else "never"


def show_limits(limits: dict[str, Limits]) -> None:
    """A row a limit, a column a pattern of models."""
    table = Table(_whole("limit"))
    for pattern in limits:
        table.add_column(Text(f"models {pattern}"), justify="right")
    for name in NAMES:
        values = [getattr(each, name) for each in limits.values()]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else f"{value:,.15g}" for value in values))
    terminal().print(table)


def show_usage(usage: Iterable[Usage]) -> None:
    """A row a tenant, day and model, and their sum."""
    table = Table("tenant", _whole("day"), "model", show_footer=True)
    sums = dict.fromkeys(("requests", "rows", "bytes"), 0)
    lines = list(usage)
    for name in sums:
        sums[name] = sum(getattr(line, name) for line in lines)
        table.add_column(name, f"{sums[name]:,}", justify="right", no_wrap=True)
    for line in lines:
        counts = (f"{getattr(line, name):,}" for name in sums)
        table.add_row(Text(line.tenant), day_text(line.day), Text(line.model), *counts)
    terminal().print(table)


def day_of(seconds: float) -> str:
    """The day (UTC) of a moment."""
    return time_text(seconds)[:10]


def _state(tenant: Tenant) -> Text:
    state = "disabled" if tenant.disabled else "enabled"
    return Text(state, STYLES[state])


def _weight(tenant: Tenant) -> str:
    return "" if tenant.weight is None else f"{tenant.weight:g}"


def _whole(name: str) -> Column:
    """A column whose texts are never cut."""
    return Column(name, no_wrap=True)
