"""Passages of libraries' documentation by topic: taken from the docstrings of installed packages, of which none is
imported.

Whoever holds a sentence out must hold all of its module out: docstrings of one module repeat each other. So modules are
split, not passages, and one that stands in two places is taken once. Passages that name a library are left out: the
rest has to be told by what it is about.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from penstock_training.data.errors import TableMissing

TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "arrays": ("numpy",),
    "databases": ("sqlalchemy",),
    "graphs": ("networkx",),
    "learning": ("sklearn",),
    "networking": (
        "asyncio",
        "email",
        "ftplib",
        "http",
        "imaplib",
        "smtplib",
        "socket",
        "ssl",
        "urllib",
        "xmlrpc",
    ),
    "plotting": ("matplotlib",),
    "science": ("scipy",),
    "symbols": ("sympy",),
    "tables": ("pandas",),
}
"""What each topic's sentences are taken from."""
MOST: Final = 500
"""Passages of one topic."""
LETTERS: Final = (60, 220)
"""Of the shortest and of the longest passage."""
TEST, VALIDATION = 20, 15
"""Modules of a hundred that are held out, and that are for choosing by."""

_NAMES: Final = re.compile(
    r"\b(numpy|np|ndarrays?|sqlalchemy|networkx|nx|scikit|sklearn|matplotlib|mpl|plt|pyplot|scipy|sympy|pandas|pd|asyncio)\b",
    re.IGNORECASE,
)
_SKIPPED: Final = frozenset({"tests", "testing", "_vendor", "externals", "_typing", "benchmarks"})
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_ROLE: Final = re.compile(r":[\w:]+:`~?\.?([^`<]+)[^`]*`|``?([^`]+)``?|\*\*?([^*\s][^*]*)\*\*?_?")


def table() -> pa.Table:
    """text: a passage. topic: one of `TOPICS`. label: its place among them. split: train, validation, test."""
    rows = [row for topic in TOPICS for row in _rows(topic)]
    names = list(TOPICS)
    once = {_plain(row[0]): row for row in reversed(rows)}
    kept = sorted(reversed(once.values()), key=lambda row: row[2])
    return pa.table(
        {
            "text": [text for text, _, _ in kept],
            "topic": [topic for _, topic, _ in kept],
            "label": pa.array([names.index(topic) for _, topic, _ in kept], pa.int64()),
            "split": [split for _, _, split in kept],
        }
    )


def split_of(module: str) -> str:
    """By the module's name alone: another version of a library moves no module to another split."""
    place = int.from_bytes(hashlib.sha256(module.encode()).digest()[:4], "big") % 100
    return "test" if place < TEST else "validation" if place < TEST + VALIDATION else "train"


def passages(docstring: str) -> Iterator[str]:
    """Whole sentences of its prose, as many as a passage takes: not of lists of parameters, examples, literals."""
    for paragraph in re.split(r"\n\s*\n", docstring.strip()):
        lines = paragraph.splitlines()
        if any(_is_markup(line) for line in lines):
            # parameters, examples, notes: all that follows is of another kind
            if any(set(line.strip()) <= set("-=~^") and line.strip() for line in lines):
                return
            continue
        prose = _ROLE.sub(lambda found: next(filter(None, found.groups())), " ".join(lines))
        passage = ""
        for sentence in _SENTENCE_END.split(" ".join(prose.split())):
            if len(passage) + len(sentence) < LETTERS[1]:
                passage = f"{passage} {sentence}".strip()
            elif passage:
                break
        if _is_good(passage):
            yield passage


def _rows(topic: str) -> list[tuple[str, str, str]]:
    """(passage, topic, split), chosen by a hash among all that there are."""
    found = [
        (passage, topic, split_of(module))
        for package in TOPICS[topic]
        for module, docstring in _docstrings(package)
        for passage in passages(docstring)
    ]
    found.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
    return found[:MOST]


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    """(module, docstring) of all that is public."""
    for name, path in _modules(package):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(node)
                if docstring and not getattr(node, "name", "").startswith("_"):
                    yield name, docstring


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise TableMissing(
            f"the table of topics needs the package {package}, which is not installed"
        )
    origin = Path(spec.origin)
    paths = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    for path in paths:
        name = path.relative_to(origin.parent.parent).as_posix()
        if not _SKIPPED & set(path.relative_to(origin.parent).parts) and not path.name.startswith(
            "test_"
        ):
            yield name, path


def _is_markup(line: str) -> bool:
    text = line.strip()
    return text.startswith((">>>", "...", "..", ":", "- ", "* ", "|", "+", "%", "#")) or (
        bool(text) and set(text) <= set("-=~^")
    )


def _is_good(passage: str) -> bool:
    shortest, longest = LETTERS
    letters = sum(character.isalpha() or character == " " for character in passage)
    return (
        shortest <= len(passage) <= longest
        and letters / len(passage) > 0.85
        and len(passage.split()) >= 7
        and passage[0].isupper()
        and passage.endswith((".", "!", "?"))
        and not _NAMES.search(passage)
    )


def _plain(passage: str) -> str:
    return re.sub(r"\W+", " ", passage.lower()).strip()
