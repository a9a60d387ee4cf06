"""`penstock tenants quota`: how much a tenant may ask for."""

from __future__ import annotations

import math
from typing import Annotated, Final

import typer
from pydantic import ByteSize, TypeAdapter

from penstock.access.limits import ALL_MODELS, WHOLE, check_limit, expected_of
from penstock.access.tenant_json import limits_json
from penstock.access.tenant_rows import find_in
from penstock.commands.tenant_desk import AsJson, Config, File, Name, desk, hint, show_json
from penstock.commands.tenant_view import show_limits
from penstock.errors import InvalidRequest

NONE: Final = "none"
"""In place of a value: no such limit."""

app = typer.Typer(
    help="Manage a tenant's quotas.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Number = Annotated[str | None, typer.Option(metavar="NUMBER", help="Or `none`.")]
Size = Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 10MiB, or `none`.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="PATTERN",
        help="The models whose requests are counted together; `*`: all of the tenant's.",
    ),
]

_size: Final = TypeAdapter(ByteSize).validate_python


@app.command("set")
def set_quota(
    tenant: Name,
    model: Model = ALL_MODELS,
    requests_per_s: Number = None,
    rows_per_s: Number = None,
    bytes_per_s: Size = None,
    burst_requests: Number = None,
    burst_rows: Number = None,
    burst_bytes: Size = None,
    in_flight: Number = None,
    queued_bytes: Size = None,
    requests_per_day: Number = None,
    rows_per_day: Number = None,
    bytes_per_day: Size = None,
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Set limits; those that are not named stay as they are."""
    given = {
        "requests_per_s": requests_per_s,
        "rows_per_s": rows_per_s,
        "bytes_per_s": bytes_per_s,
        "burst_requests": burst_requests,
        "burst_rows": burst_rows,
        "burst_bytes": burst_bytes,
        "in_flight": in_flight,
        "queued_bytes": queued_bytes,
        "requests_per_day": requests_per_day,
        "rows_per_day": rows_per_day,
        "bytes_per_day": bytes_per_day,
    }
    texts = {name: text for name, text in given.items() if text is not None}
    if not texts:
        raise InvalidRequest("no limit was given, such as --requests-per-s 100")
    values = {name: _parse(name, text) for name, text in texts.items()}
    with desk(config, file) as at, at.trace.of("quota.set", tenant, model=model, **texts):
        limits = at.store.set_limits(tenant, values, model)
    if as_json:
        show_json(limits_json({model: limits}))
    else:
        show_limits({model: limits})


@app.command("list")
def list_quotas(
    tenant: Name, config: Config = None, file: File = None, as_json: AsJson = False
) -> None:
    """List a tenant's limits, by pattern of models."""
    with desk(config, file) as at:
        snapshot = at.store.read()
    find_in(snapshot, tenant)
    limits = snapshot.limits_of(tenant)
    if as_json:
        show_json(limits_json(limits))
    elif limits:
        show_limits(limits)
    else:
        hint(f"tenant '{tenant}' has no limits")


@app.command("clear")
def clear(
    tenant: Name,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="PATTERN", help="Only the limits that were set for it."),
    ] = None,
    config: Config = None,
    file: File = None,
) -> None:
    """Take limits away: all of the tenant's, unless --model is given."""
    with desk(config, file) as at, at.trace.of("quota.clear", tenant, model=model or "all"):
        at.store.clear_limits(tenant, model)
    hint(f"tenant '{tenant}' has no limits{f' for the models {model}' if model else ''} any more")


def _parse(name: str, text: str) -> float | int | None:
    """A limit's value. Raises InvalidRequest, which shows what was typed."""
    if text == NONE:
        return None
    try:
        value = int(_size(text)) if "bytes" in name else _number(name, text)
        return check_limit(name, value)
    except (ValueError, InvalidRequest):
        expected = "a size, such as 10MiB" if "bytes" in name else expected_of(name)
        raise _wrong(name, text, expected) from None


def _number(name: str, text: str) -> float | int:
    number = float(text)
    return int(number) if name in WHOLE and math.isfinite(number) and number % 1 == 0 else number


def _wrong(name: str, text: str, expected: str) -> InvalidRequest:
    flag = "--" + name.replace("_", "-")
    return InvalidRequest(f"{flag}: expected {expected}, or `{NONE}`; got {text[:80]!r}")
