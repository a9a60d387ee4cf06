"""What a server has from a registry, for a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from penstock.commands.v2_client import RegistryModelView, RegistryView


def registry_report(view: RegistryView) -> Iterator[RenderableType]:
    """A line on the registry, a table of its models, and a line for each that something is wrong with."""
    yield Text(" ".join(_head(view)))
    if view.problem:
        yield Text(view.problem)
    table = Table("model", "reference", "versions", "default", "aliases")
    for model in view.models:
        aliases = ", ".join(f"{alias} = {version}" for alias, version in model.aliases.items())
        default = "" if model.default is None else str(model.default)
        cells = (model.name, "\n".join(model.refs), _versions(model), default, aliases)
        table.add_row(*map(Text, cells))
    yield table
    for model in view.models:
        if model.problem:
            yield Text(f"{model.name}: {model.problem}")


def _head(view: RegistryView) -> Iterator[str]:
    yield view.uri or "the registry"
    if not view.agent:
        yield "is not asked: there is no registry agent"
    elif view.reachable:
        yield "answers"
    else:
        yield "does not answer"
    if view.last_contact is not None and not (view.agent and view.reachable):
        when = datetime.fromtimestamp(view.last_contact, UTC)
        yield f"(last at {when:%Y-%m-%d %H:%M:%S} UTC)"


def _versions(model: RegistryModelView) -> str:
    there = [str(each.version) for each in model.versions]
    return ", ".join([*there, *(f"{version} (on its way)" for version in model.fetching)])
