"""What an attack found: requests and models that would have cost a slab, a worker, or memory without end."""

from __future__ import annotations

import numpy as np
import pytest

from pending import pending
from penstock.errors import InvalidRequest
from penstock.gateway import inference
from penstock.tensors import element_count
from penstock.types import InferHeader
from penstock.workers.messages import BatchFailed, decode_worker_event, encode, sendable


@pytest.mark.parametrize("shape", [(1, 0, 10**30), (0, 2**62), (2**63, 0), (2**41, 0)])
def test_an_empty_shape_has_dimensions_that_arrays_and_messages_can_carry(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(InvalidRequest, match="too many elements"):
        element_count(shape)
    assert element_count((1, 0, 3)) == 0


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
