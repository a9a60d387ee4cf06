"""What the server's log must not have: whatever clients do, no bug may show."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

BUGS: Final = re.compile(
    r"Traceback|Exception|answered twice|could not be|[Ss]egmentation|AssertionError"
)
SHOWN_LINES: Final = 25
"""Of a traceback."""
NEXT_ENTRY: Final = re.compile(r"^\d{4}-\d\d-\d\dT")


def bugs_in(log: str) -> list[str]:
    """Each different entry that tells of a bug, with how often it came. Numbers and addresses make no difference."""
    found: Counter[str] = Counter()
    first: dict[str, str] = {}
    for entry in _entries(log):
        if BUGS.search(entry):
            form = re.sub(r"0x[0-9a-f]+|\d+", "#", entry)
            found[form] += 1
            first.setdefault(form, entry)
    return [f"{count} times: {first[form]}" for form, count in found.most_common()]


def _entries(log: str) -> list[str]:
    """Lines with those that belong to them, such as a traceback's."""
    entries: list[list[str]] = []
    for line in log.splitlines():
        if NEXT_ENTRY.match(line) or not entries:
            entries.append([])
        if len(entries[-1]) < SHOWN_LINES:
            entries[-1].append(line)
    return ["\n".join(lines) for lines in entries]
