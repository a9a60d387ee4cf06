"""Starts servers, and sees to it that nothing stays."""

from __future__ import annotations

import functools
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervised import Server, all_gone, eventually


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """`start(*flags, **environment)` gives a server that must leave nothing behind."""
    servers: list[Server] = []
    folders: list[Path] = []

    def start_one(*flags: str, **environment: str) -> Server:
        # pytest's own folders are too deep for Unix sockets
        folders.append(Path(tempfile.mkdtemp(prefix="pt-")))
        servers.append(Server(folders[-1], flags, environment))
        return servers[-1]

    try:
        yield start_one
    finally:
        for server in servers:
            server.close()
    for server in servers:
        eventually(functools.partial(all_gone, server.mark), "processes are left")
        if server.process.returncode != -signal.SIGKILL:
            assert not list((server.folder / "run").iterdir())
    for folder in folders:
        shutil.rmtree(folder)
