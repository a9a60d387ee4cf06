"""Large messages are decoded beside the event loop."""

from __future__ import annotations

import asyncio
import struct
import threading

import numpy as np
import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.aside import LARGE_BYTES, Aside
from penstock.gateway.http_response import MAX_JSON_BYTES, encode_http_infer
from penstock.types import InferResponse, OutputTensor


async def test_the_loop_goes_on_while_a_message_is_decoded() -> None:
    aside = Aside()
    loop_went_on = threading.Event()
    working = asyncio.ensure_future(aside.run(loop_went_on.wait, 30))
    await asyncio.sleep(0)
    assert not working.done()
    loop_went_on.set()
    assert await working is True
    aside.close()


async def test_errors_come_back() -> None:
    def refuse(_: bytes) -> None:
        raise InvalidRequest("no")

    aside = Aside()
    with pytest.raises(InvalidRequest, match="no"):
        await aside.run(refuse, bytes(LARGE_BYTES))
    aside.close()


def test_outputs_that_are_too_large_for_json_are_refused_by_name() -> None:
    data = struct.pack("<f", 1.5) * (MAX_JSON_BYTES // 4 + 1)
    shape = (len(data) // 4,)
    response = InferResponse("m", "1", "", (OutputTensor("Y", "FP32", shape, memoryview(data)),))
    with pytest.raises(InvalidRequest, match=r"output 'Y' has 16777220 bytes.*binary_data"):
        encode_http_infer(response, (), False)
    body, header_length = encode_http_infer(response, (), True)
    assert header_length is not None
    assert np.frombuffer(body, np.float32, offset=header_length).sum() == 1.5 * shape[0]
