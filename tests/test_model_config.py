"""The typed view of a configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest

AT_ONCE = """
import sys, threading
from penstock.MODULE import parse

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def first():
    together.wait()
    tensor = {"name": "X", "data_type": "TYPE_FP32", "dims": [1]}
    sample = {"name": "s", "inputs": {"X": {"zero_data": True, "dims": [1]}}}
    more = {"model_warmup": [sample], "sequence_batching": {"state": []}}
    parse({"name": "m", "input": [tensor], "output": [], **more})

threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("module", ["model_config", "workers.warmup_samples"])
def test_the_first_configurations_may_be_parsed_by_several_threads_at_once(module: str) -> None:
    """One process in six died of it."""
    program = AT_ONCE.replace("MODULE", module)
    for _ in range(8):
        assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
