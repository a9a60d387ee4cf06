"""One thing that a check found."""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A mistake that keeps a model from being served, or a warning."""

    severity: Literal["error", "warning"]
    text: str
    """What is wrong, and what was expected; one line."""
    file: str = ""
    """The file or folder it is about."""
    line: int = 0
    """In the file; 0: in none of its lines."""

    @property
    def place(self) -> str:
        """`config.pbtxt:3`; empty where it is about no file."""
        return f"{self.file}:{self.line}" if self.line else self.file


def error(text: str, file: str = "", line: int = 0) -> Finding:
    """A mistake."""
    return Finding(severity="error", text=" ".join(text.split()), file=file, line=line)


def warning(text: str, file: str = "", line: int = 0) -> Finding:
    """A warning."""
    return Finding(severity="warning", text=" ".join(text.split()), file=file, line=line)
