"""What all parts share: a server with nothing but the sleeper, warm, in a folder of its own, and its check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock_loadtest.resilience.answers import lateness_s
from penstock_loadtest.resilience.open_loop import Stream
from penstock_loadtest.resilience.report import ClientCheck
from penstock_loadtest.resilience.sleeper import CAPACITY, write_sleeper
from penstock_loadtest.resilience.streams import Sent, send, together
from penstock_loadtest.servers import RunningServer, Server, running

Say = Callable[[str], None]

WARM_UP_S: Final = 2.0
WARM_UP_RATE: Final = CAPACITY / 4
WARM_UP_PATIENCE_S: Final = 5.0


@contextmanager
def warm_server(server: Server, folder: Path) -> Iterator[RunningServer]:
    """Start `server` on a repository in `folder` that holds the sleeper only, and send it a light load for a while.

    Raises BenchmarkError where it doesn't start or answers wrongly.
    """
    repository = write_sleeper(folder / "repository")
    with running(server, repository, folder / "server.log") as started:
        address, patience_s = started.grpc_address, WARM_UP_PATIENCE_S
        send([Stream(address, WARM_UP_RATE, WARM_UP_S, patience_s, seed=0)], folder)
        yield started


@contextmanager
def turn_folder() -> Iterator[Path]:
    """A temporary folder for one turn."""
    with tempfile.TemporaryDirectory(prefix="penstock-resilience-") as folder:
        yield Path(folder)


def check_client(sent: Sequence[Sent]) -> ClientCheck:
    """How the clients of one turn did."""
    late_s = lateness_s(together(sent))
    return ClientCheck(round(late_s * 1e3, 3), round(max(one.cores for one in sent), 3))
