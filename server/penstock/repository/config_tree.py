"""What config.pbtxt and config.yaml have in common: keys and values that know their lines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from penstock.errors import ConfigError

MAX_DEPTH = 32
"""Blocks in blocks. The deepest path of a model's configuration has 7."""


class Style(Enum):
    """How a value was written, which says what it may mean."""

    WORD = auto()
    """Without quotes, in config.pbtxt: a number, true, false, or an enum's name."""
    TEXT = auto()
    """In quotes."""
    PLAIN = auto()
    """Without quotes, in config.yaml: a WORD or a TEXT, as its key wants."""
    NOTHING = auto()
    """A key without a value, in config.yaml."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, as it was written but for quotes and escapes."""

    text: str
    style: Style
    line: int

    def __str__(self) -> str:
        if self.style is Style.NOTHING:
            return "empty"
        shown = self.text if len(self.text) <= 60 else f"{self.text[:60]}…"
        return repr(shown) if self.style is Style.TEXT else shown


@dataclass(frozen=True, slots=True)
class Block:
    """Keys and their values, in the order of the file. A key may stand more than once."""

    entries: tuple[Entry, ...]
    line: int

    def __str__(self) -> str:
        return "a block of keys"


@dataclass(frozen=True, slots=True)
class Items:
    """A list in brackets."""

    nodes: tuple[Node, ...]
    line: int

    def __str__(self) -> str:
        return "a list"


Node = Scalar | Block | Items


@dataclass(frozen=True, slots=True)
class Entry:
    """One key and its value."""

    key: str
    line: int
    node: Node


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file that has been read. Lines count from 1."""

    path: Path
    text: str

    def error(self, line: int, text: str) -> ConfigError:
        """What is wrong in a line, for `raise`."""
        return ConfigError(f"{self.path}:{line}: {text}")

    def line_at(self, position: int) -> int:
        """The line of a position in `text`."""
        return self.text.count("\n", 0, position) + 1
