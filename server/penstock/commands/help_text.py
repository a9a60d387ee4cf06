"""Help as it was written: `[secrets]` is no markup, and a docstring ends before its `\\f` without empty lines."""

from __future__ import annotations

from typing import Any

from rich.markup import escape


def make_plain(command: Any) -> None:
    """A command of typer's, with all below it."""
    if command.help:
        command.help = escape(command.help.partition("\f")[0].strip())
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
    for inner in getattr(command, "commands", {}).values():
        make_plain(inner)
