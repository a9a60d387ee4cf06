"""What tests read of Markdown pages: fenced blocks, links, flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_FLAG: Final = re.compile(r"--[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    """The page's fenced blocks, in order."""
    return [Block(language, text) for language, text in _FENCED.findall(path.read_text())]


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """File and heading (may be empty) of each link that leads to a place in this repository."""
    for target in _LINK.findall(_FENCED.sub("", path.read_text())):
        if "://" not in target:
            file, _, heading = target.partition("#")
            yield path.parent / file if file else path, heading


def headings(path: Path) -> set[str]:
    """The page's headings, as links name them."""
    lines = re.findall(r"^#+ (.+)$", _FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def flags(path: Path) -> set[str]:
    """All flags in the text's inline code that begins with one."""
    codes = _CODE.findall(_FENCED.sub("", path.read_text()))
    return {flag for code in codes if code.startswith("--") for flag in _FLAG.findall(code)}
