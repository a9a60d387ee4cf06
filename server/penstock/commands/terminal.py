"""What commands print tables and reports to."""

from __future__ import annotations

import os
from typing import Final

from rich.console import Console

UNBOUNDED: Final = 10_000
"""Columns."""


def terminal(*, highlight: bool = True) -> Console:
    """Standard output. Where it is no terminal, and nobody has said how wide it is, lines are as long as they have to
    be: a reason that is cut at eighty columns helps nobody who reads it from a file."""
    console = Console(highlight=highlight)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUNDED
    return console
