"""`penstock rollout`: try a new version of a model on a running server's requests, and keep it or go back."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer
from rich.live import Live

from penstock.commands.client_identity import CaFile, CertFile, Identity, KeyFile
from penstock.commands.rollout_view import as_report, as_table, one_line
from penstock.commands.terminal import terminal
from penstock.commands.v2_client import Client
from penstock.errors import InvalidRequest, Unavailable
from penstock.gateway.rollout_view import RolloutView
from penstock.rollouts.decisions import Status
from penstock.rollouts.plan import steps_of

TIMEOUT_S: Final = 330.0
"""A version may have to be fetched and loaded first."""
PERIOD_S: Final = 1.0
"""From one look of --watch to the next."""
PATIENCE: Final = 30
"""Looks in a row that may fail: the server may be started anew."""

app = typer.Typer(
    help="Try a new version of a model on a share of a running server's requests; it is taken back by itself when it is"
    " worse. PENSTOCK_API_KEY in the environment is the API key to show.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Url = Annotated[str, typer.Option("--url", help="Where the server is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Show JSON.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Show it until it is over; Ctrl-C ends that alone.")
]
LOCAL: Final = "http://127.0.0.1:8000"


class _Rollouts(msgspec.Struct, frozen=True):
    rollouts: tuple[RolloutView, ...]


@app.command("start")
def start(
    model: Model,
    to: Annotated[
        str, typer.Option("--to", help="Version to try, or an alias such as @challenger.")
    ],
    since: Annotated[
        str,
        typer.Option(
            "--from", help="Version to go back to; the one that answers now, unless given."
        ),
    ] = "",
    steps: Annotated[str, typer.Option("--steps", help="Percentages, such as 1,10,50,100.")] = "",
    step_seconds: Annotated[
        float | None, typer.Option("--step-seconds", help="How long a step lasts at least.")
    ] = None,
    min_requests: Annotated[
        int | None, typer.Option("--min-requests", help="Requests that a step needs at least.")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Send copies only, and compare the outputs.")
    ] = False,
    promote: Annotated[
        bool | None,
        typer.Option("--promote/--no-promote", help="Promote it when all steps have gone well."),
    ] = None,
    fallback: Annotated[
        bool | None,
        typer.Option("--fallback/--no-fallback", help="Run what it fails on the stable version."),
    ] = None,
    sticky: Annotated[
        bool | None,
        typer.Option("--sticky/--no-sticky", help="Requests of one id go to one version."),
    ] = None,
    guards: Annotated[
        list[str] | None,
        typer.Option(
            "--guard", metavar="NAME=VALUE", help="Such as p99_ratio=1.3 or drift=off. Repeatable."
        ),
    ] = None,
    despite_gates: Annotated[
        bool,
        typer.Option("--despite-gates", help="Also one that has failed its training's gates."),
    ] = False,
    watch: Watch = False,
    as_json: AsJson = False,
    url: Url = LOCAL,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Begin to try a version."""
    given: dict[str, Any] = {
        "to": to,
        "from": since or None,
        "steps": steps_of(steps) if steps else None,
        "step_s": step_seconds,
        "min_requests": min_requests,
        "mode": "shadow" if shadow else None,
        "promote": promote,
        "fallback": fallback,
        "sticky": sticky,
        "guards": _guards(guards or []) or None,
        "despite_gates": despite_gates or None,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    client = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file))
    view = client.ask("POST", _path(model), RolloutView, asked)
    _show(client, view, watch, as_json)


@app.command("status")
def status(
    model: Model,
    watch: Watch = False,
    as_json: AsJson = False,
    url: Url = LOCAL,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Show a model's last roll-out."""
    client = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file))
    _show(client, client.ask("GET", _path(model), RolloutView), watch, as_json)


@app.command("list")
def list_rollouts(
    as_json: AsJson = False,
    url: Url = LOCAL,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """List each model's last roll-out."""
    client = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file))
    found = client.ask("GET", "/v2/rollouts", _Rollouts).rollouts
    if as_json:
        typer.echo(_json(found))
    else:
        terminal().print(as_table(found))


def _changing(name: str, what: str, method: str = "POST", place: str = "") -> None:
    """A command that is one request. `place`: beside the roll-out's own path."""

    def change(
        model: Model,
        as_json: AsJson = False,
        url: Url = LOCAL,
        ca_file: CaFile = None,
        cert_file: CertFile = None,
        key_file: KeyFile = None,
    ) -> None:
        client = Client(url, TIMEOUT_S, Identity.of(ca_file, cert_file, key_file))
        view = client.ask(method, _path(model) + place, RolloutView)
        typer.echo(_json(view) if as_json else one_line(view))

    app.command(name, help=what)(change)


_changing("pause", "Stay at the step; the guards go on.", place="/pause")
_changing("resume", "Go on with the step.", place="/resume")
_changing("promote", "Have the new version answer all requests, now.", place="/promote")
_changing("abort", "Go back to the stable version, now.", place="/abort")
_changing(
    "forget",
    "Abort a roll-out if it goes on, and forget it. The version that answers stays the one that it is.",
    method="DELETE",
)


def _show(client: Client, view: RolloutView, watch: bool, as_json: bool) -> None:
    """Ends with 1 where the end was watched, and the new version is not kept."""
    if not watch:
        if as_json:
            typer.echo(_json(view))
        else:
            terminal().print(as_report(view))
        return
    view = _watch(client, view, as_json)
    if view.status is not Status.PROMOTED:
        raise typer.Exit(1)


def _watch(client: Client, view: RolloutView, as_json: bool) -> RolloutView:
    """Until it is over and done. Without a terminal, or as JSON, a line for each change."""
    console = terminal()
    if as_json or not console.is_terminal:
        before = ""
        while True:
            line = msgspec.json.encode(view).decode() if as_json else one_line(view)
            if line != before:
                typer.echo(line)
                before = line
            if view.ended_at:
                return view
            view = _next(client, view)
    with Live(as_report(view), console=console, refresh_per_second=4) as live:
        while not view.ended_at:
            view = _next(client, view)
            live.update(as_report(view))
    return view


def _next(client: Client, view: RolloutView) -> RolloutView:
    """The view a moment later. Raises what the server answers, and Unavailable where it does not for long."""
    for attempt in range(PATIENCE):
        time.sleep(PERIOD_S)
        try:
            return client.ask("GET", _path(view.model), RolloutView)
        except Unavailable:
            if attempt == PATIENCE - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _guards(given: list[str]) -> dict[str, float | None]:
    """Raises InvalidRequest."""
    guards: dict[str, float | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            guards[name.strip()] = None if value.strip() == "off" else _number(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise InvalidRequest(
                f"--guard {text!r}: expected NAME=NUMBER or NAME=off, such as p99_ratio=1.3"
            )
    return guards


def _number(text: str) -> float:
    """Whole ones as such: some settings are counts."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/rollout"


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
