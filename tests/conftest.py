"""What holds for all tests, before any of them is imported."""

import gc
import logging
import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from mlflow_server import QUIET, MlflowServer
from penstock.devices.discovery import VISIBLE, Inventory
from penstock.quiet import keep_quiet

# Tests start processes while gRPC's clients run, and gRPC's handlers of forks may abort the child, which needs none: it
# runs another program at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Servers that are told nothing else keep their state at home: no test finds what an earlier run has left there.
STATE = tempfile.TemporaryDirectory(prefix="penstock-state-")
os.environ["XDG_STATE_HOME"] = STATE.name

# Libraries that phone home don't.
os.environ.update(QUIET)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
keep_quiet()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where there is none, with the reason."""
    marked = [item for item in items if item.get_closest_marker("gpu") is not None]
    found = Inventory(os.environ.get(VISIBLE)).found() if marked else None
    if found is not None and not found.gpus:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {found.reason}"))


def pytest_unconfigure() -> None:
    """It goes with the tests."""
    STATE.cleanup()


# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="module", autouse=True)
def spared_collector() -> None:
    """What is there before a module's tests stays: each of those that collect garbage, to count descriptors, would look
    at all of it, which takes a second or two with all that is imported here."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Commands that run in this process set up logging for all of it: the tests that follow get none of that."""
    root, own = logging.getLogger(), logging.getLogger("penstock")
    # pytest's own are the same objects in each phase of each test
    handlers, levels = root.handlers[:], (root.level, own.level)
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(levels[0])
    own.setLevel(levels[1])


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[MlflowServer]:
    """One for all tests: each makes models and experiments of names of its own, and leaves it running."""
    server = MlflowServer()
    yield server
    server.close()
