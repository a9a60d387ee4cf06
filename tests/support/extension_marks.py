"""A pytest plugin: writes what the collected tests' `extension` marks say, as JSON, into the file that
`EXTENSION_MARKS` in the environment names. `extensions.py` runs pytest with it, and makes the documentation's table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from served import FRONTS

PROTOCOLS: Final = ("http", "grpc")
FIXTURES: Final = {"http": "http", "rpc": "grpc", "channel": "grpc", "raw": "grpc"}
"""Fixtures that are a client, → its protocol."""


_CLIENTS: Final = {
    "http": re.compile(r"tritonclient\.http|\bserve[dr]\.(infer|start_infer|request|get)\("),
    "grpc": re.compile(r"tritonclient\.grpc|\bgrpc_calls\b"),
}
"""What a module's text has that asks over the protocol."""


class Marked(msgspec.Struct, frozen=True):
    """One test, and one of the extensions that it is about."""

    extension: str
    file: str
    """Relative to `tests/`."""
    e2e: bool
    refused: bool
    """It is about the answer of a server that does not have the extension."""
    fronts: frozenset[str]
    protocols: frozenset[str]


def pytest_collection_finish(session: pytest.Session) -> None:
    """All tests are known."""
    marked = [found for item in session.items for found in _marked(item)]
    Path(os.environ["EXTENSION_MARKS"]).write_bytes(msgspec.json.encode(marked))


def _marked(item: pytest.Item) -> Iterator[Marked]:
    file = str(item.path.relative_to(item.config.rootpath / "tests"))
    e2e = item.get_closest_marker("e2e") is not None
    fronts, protocols = frozenset(_fronts(item)), frozenset(_protocols(item))
    for mark in item.iter_markers("extension"):
        (name,) = mark.args
        refused = bool(mark.kwargs.get("refused", False))
        yield Marked(name, file, e2e, refused, fronts, protocols)


def _fronts(item: pytest.Item) -> Iterator[str]:
    return (value for value in _parameters(item) if value in FRONTS)


def _protocols(item: pytest.Item) -> Iterator[str]:
    """Those of its parameters and fixtures; where neither says it, those whose clients its module has imported."""
    found = [value for value in _parameters(item) if value in PROTOCOLS]
    names = getattr(item, "fixturenames", ())
    found += [protocol for fixture, protocol in FIXTURES.items() if fixture in names]
    return iter(found or _imported(item))


def _parameters(item: pytest.Item) -> Iterator[Any]:
    """The values; modules of tritonclient by their protocol."""
    for value in getattr(getattr(item, "callspec", None), "params", {}).values():
        name = getattr(value, "__name__", value)
        yield name.removeprefix("tritonclient.") if isinstance(name, str) else None


def _imported(item: pytest.Item) -> list[str]:
    source = item.path.read_text()
    return [protocol for protocol in PROTOCOLS if _CLIENTS[protocol].search(source)]
