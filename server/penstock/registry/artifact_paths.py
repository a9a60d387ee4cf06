"""Which paths files of a version may have: a registry's answer is believed no more than any other input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstock.errors import LinkOutside

MAX_DEPTH: Final = 64
MAX_FILES: Final = 100_000
MAX_PART_BYTES: Final = 255

PYTHONS_OWN: Final = "__pycache__"
"""What Python writes by itself is not fetched: no signature and no digest covers it."""


def check_path(path: str) -> None:
    """Raises LinkOutside for one that leads out of the version's folder, or that no file can have."""
    shown = f"{path[:200]!a}"
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise LinkOutside(f"{shown} leads out of the version's folder")
    if not path or "" in parts or "." in parts or "\0" in path or "\\" in path:
        raise LinkOutside(f"{shown} is no path of a file, expected names with `/` between them")
    if len(parts) > MAX_DEPTH:
        raise LinkOutside(f"{shown} is over {MAX_DEPTH} folders deep")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        raise LinkOutside(f"{shown} is not UTF-8") from None
    if longest > MAX_PART_BYTES:
        raise LinkOutside(f"{shown} has a name of over {MAX_PART_BYTES} bytes")


def check_paths(paths: Iterable[str]) -> None:
    """All of them. Raises LinkOutside, also where one is both a file and a folder, or is there twice."""
    seen: set[str] = set()
    for path in paths:
        check_path(path)
        if path in seen:
            raise LinkOutside(f"{path[:200]!a} is there twice")
        seen.add(path)
        if len(seen) > MAX_FILES:
            raise LinkOutside(f"over {MAX_FILES} files")
    for path in seen:
        folder, slash, _ = path.rpartition("/")
        while slash:
            if folder in seen:
                raise LinkOutside(f"{folder[:200]!a} is both a file and a folder")
            folder, slash, _ = folder.rpartition("/")


def is_pythons_own(path: str) -> bool:
    """Whether it is left out."""
    return PYTHONS_OWN in path.split("/")
