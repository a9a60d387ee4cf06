"""What an attack found: requests and models that would have cost a slab, a worker, or memory without end."""

from __future__ import annotations

import numpy as np
import pytest

from pending import pending
from penstock.errors import InvalidRequest
from penstock.gateway import inference
from penstock.model_config import ModelConfig, Tensor
from penstock.repository.signature import Signature
from penstock.types import InferHeader, TensorSpec
from penstock.workers.message import encode, sendable
from penstock.workers.worker_events import BatchFailed, decode_worker_event


@pytest.mark.parametrize("shape", [(1, 0, 10**30), (1, 0, 2**62), (1, 2**63, 0)])
def test_an_empty_shape_has_dimensions_that_arrays_and_messages_can_carry(
    shape: tuple[int, ...],
) -> None:
    tensor = Tensor(name="X", data_type="TYPE_FP32", dims=(-1, -1))
    signature = Signature(ModelConfig(name="m", max_batch_size=4, input=(tensor,)))
    with pytest.raises(InvalidRequest, match="too large dimension"):
        signature.plan(InferHeader("m", "", (TensorSpec("X", "FP32", shape),)))
    assert signature.plan(InferHeader("m", "", (TensorSpec("X", "FP32", (1, 0, 3)),))).rows == 1


def test_an_error_with_lone_surrogates_can_be_sent() -> None:
    failed = BatchFailed(1, sendable("no file 'a\udcff'"))
    assert decode_worker_event(encode(failed)) == BatchFailed(1, "no file 'a\\udcff'")


def test_long_parameters_are_counted() -> None:
    header = InferHeader("m", "", (), (), {"key": "x" * 5000, "n": 1})
    assert inference._parameter_characters(header) == 5004 > inference.MAX_PARAMETER_CHARACTERS


def test_a_request_counts_all_that_it_keeps_alive() -> None:
    request = pending({"X": np.zeros((1, 2), np.float32)})
    assert request.nbytes == 8
    held = type(request)(
        request.plan, "", request.buffers, request.encode, request.respond, 0, request.queue, 1000
    )
    assert held.nbytes == 1000
