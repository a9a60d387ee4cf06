"""Records of the audit log for a terminal: a table where there is room for one, else a line and its details each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Column, Table
from rich.text import Text

from penstock.audit.lines import Record
from penstock.commands.terminal import terminal
from penstock.logs import without_controls

TABLE_WIDTH: Final = 140
"""Narrower terminals leave a table's last column so little that a record takes ten lines."""
_INDENT: Final = "    "


def show_records(found: Sequence[Record]) -> None:
    """All of them, oldest first. Neither time, nor action, nor who is ever cut."""
    console = terminal(highlight=False)
    if console.width >= TABLE_WIDTH:
        console.print(_table(found))
        return
    for record in found:
        # a file or a pipe has no width: a record is a line there, for whoever searches
        width = console.width if console.is_terminal else None
        for line in lines_of(record, width):
            console.print(Text(line), soft_wrap=True)


def lines_of(record: Record, width: int | None) -> Iterator[str]:
    """The record, and below it what else is known of it where that does not fit beside it. None: any width."""
    seq, time, what, who, details = _cells(record)
    line = "  ".join(filter(None, (f"{seq:>4}", time, what, who)))
    if not details or width is None or len(line) + 2 + len(details) <= width:
        yield f"{line}  {details}" if details else line
        return
    yield line
    # an id that is broken can't be searched for, or copied
    yield from textwrap.wrap(
        details,
        width,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(found: Sequence[Record]) -> Table:
    whole = [Column(name, no_wrap=True) for name in ("seq", "time", "what")]
    table = Table(*whole, Column("who", overflow="fold"), Column("details", overflow="fold"))
    for record in found:
        table.add_row(*map(Text, _cells(record)))
    return table


def _cells(record: Record) -> tuple[str, ...]:
    what = f"{record.what} {record.outcome}".rstrip()
    # to the millisecond, of UTC
    cells = (str(record.seq), f"{record.time[:23]}Z", what, _who(record), _details(record))
    # whoever can write the files need not write what we would
    return tuple(map(without_controls, cells))


def _who(record: Record) -> str:
    if record.principal and record.tenant:
        return f"{record.principal} ({record.tenant})"
    return record.principal or record.tenant


def _details(record: Record) -> str:
    """All that has no column of its own."""
    pairs = {
        "model": record.model,
        "client": record.client,
        "id": record.request_id,
        **record.details,
    }
    if record.kind == "resumed":
        pairs |= {"lost": str(record.lost), "problem": record.problem}
    if record.kind == "repair":
        pairs |= {"cut_bytes": str(record.cut_bytes)}
    shown = [f"{name}={text}" for name, text in pairs.items() if text]
    return ", ".join([record.reason, *shown] if record.reason else shown)
