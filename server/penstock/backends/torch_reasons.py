"""What torch's exceptions say, on one line for a client: the reason, without the places where it happened."""

from __future__ import annotations

import re
from typing import Final

from penstock.backends.isolation import one_line

MAX_REASON: Final = 400

_NATIVE_TRACE: Final = re.compile(r"\s*Exception raised from .*", re.DOTALL)
_INTERPRETER: Final = "failed in the TorchScript interpreter"
_PLACE: Final = "<--- HERE"
_REASON: Final = re.compile(r"^(?:builtins\.)?([A-Za-z_][\w.]*: .*)", re.DOTALL | re.MULTILINE)
"""`type: message` at the beginning of a line; the code before it is indented."""


def short_reason(error: BaseException) -> str:
    """torch's message on one line, without the places in its C++ code or in TorchScript's."""
    text = _NATIVE_TRACE.sub("", _of_script(str(error)) or one_line(error))
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _of_script(text: str) -> str:
    """What TorchScript's interpreter says after its tracebacks, of which it has two; empty: that is none of it."""
    head, place, rest = text.rpartition(_PLACE)
    if not place or _INTERPRETER not in head:
        return ""
    if found := _REASON.search(rest):
        return " ".join(found[1].split())
    lines = rest.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
