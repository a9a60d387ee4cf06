"""What holds for all tests, before any of them is imported."""

import os
import tempfile

from hypothesis import HealthCheck, settings

# Tests start processes while gRPC's clients run, and gRPC's handlers of forks may abort the child, which needs none: it
# runs another program at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Servers that are told nothing else keep their state at home: no test finds what an earlier run has left there.
STATE = tempfile.TemporaryDirectory(prefix="penstock-state-")
os.environ["XDG_STATE_HOME"] = STATE.name


def pytest_unconfigure() -> None:
    """It goes with the tests."""
    STATE.cleanup()


# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
