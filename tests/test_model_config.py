"""The typed view of a configuration."""

from __future__ import annotations

import subprocess
import sys

AT_ONCE = """
import sys, threading
from penstock import model_config

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def parse():
    together.wait()
    tensor = {"name": "X", "data_type": "TYPE_FP32", "dims": [1]}
    model_config.parse({"name": "m", "input": [tensor], "sequence_batching": {"state": []}})

threads = [threading.Thread(target=parse) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_configurations_may_be_parsed_by_several_threads_at_once() -> None:
    """One process in six died of it."""
    for _ in range(10):
        assert subprocess.run([sys.executable, "-c", AT_ONCE], timeout=60).returncode == 0
