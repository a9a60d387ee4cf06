"""A worker whose GPU fails it for good ends as if it had crashed; what only looks like that keeps its worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from served import Served, json_request
from served_models import write_model
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("gpu_placement")]

ONCE, ALWAYS, TOO_LARGE, ITS_OWN = -1.0, -2.0, -3.0, -4.0
"""What `tests/apps/wrecked.py` is asked for."""


def test_a_worker_that_lost_its_gpu_is_replaced_and_its_requests_are_run_again(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path / "wrecked", "wrecked", "")
    server = serve(tmp_path, front).wait_ready()
    (first,) = server.workers("wrecked")

    refused = server.infer("wrecked", json_request(TOO_LARGE))
    assert (refused.status, "out of GPU memory: this request alone" in refused.error) == (500, True)
    refused = server.infer("wrecked", json_request(ITS_OWN))
    assert (refused.status, "RuntimeError: CUDA error: an illegal" in refused.error) == (500, True)
    assert server.workers("wrecked") == [first]

    assert server.infer("wrecked", json_request(ONCE)).status == 200
    (second,) = server.workers("wrecked")
    assert second != first
    assert "the GPU is lost to this process, which ends" in server.log
    assert "AcceleratorError: CUDA error: an illegal memory access was encountered" in server.log

    killed = server.infer("wrecked", json_request(ALWAYS))
    assert killed.status == 500
    expected = "the worker process ended while it ran this request: an error of CUDA that only a new process gets over"
    assert expected in killed.error
    again = server.infer("wrecked", json_request(ALWAYS))
    assert "refused, for a request like this was run before" in again.error
    eventually(lambda: len(server.workers("wrecked")) == 1, "the worker is not back")
    assert server.infer("wrecked", json_request(1.0)).status == 200
