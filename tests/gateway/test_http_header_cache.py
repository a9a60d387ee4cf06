"""The decoder's memory of headers: what it shares, and what it must not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from http_requests import (
    FLOATS,
    binary_request,
    decode_json,
    request,
    send,
    tensor,
)
from penstock.errors import InvalidRequest
from penstock.gateway.http_request import HttpInferDecoder


def test_requests_that_differ_in_id_and_bytes_share_their_header() -> None:
    decoder = HttpInferDecoder()
    first = send(decoder, binary_request())
    second = send(decoder, binary_request(), FLOATS.tobytes())
    assert second.header is first.header
    assert bytes(second.buffers[0]) == FLOATS.tobytes()
    named = [send(decoder, binary_request(id=f"é{i}")) for i in range(3)]
    assert [decoded.id for decoded in named] == ["é0", "é1", "é2"]
    assert named[0].header is named[1].header is named[2].header
    assert send(decoder, binary_request(), model="other").header is not first.header


def test_an_id_elsewhere_is_found_too() -> None:
    decoder = HttpInferDecoder()
    for request_id in ("a", "b", 'c"', "\\"):
        assert send(decoder, {**binary_request(), "id": request_id}).id == request_id
        assert send(decoder, binary_request(id=request_id)).id == request_id


def test_the_last_of_two_ids_counts() -> None:
    decoder = HttpInferDecoder()
    for first, last in (("a", "b"), ("a", "c"), ("d", "c")):
        text = f'{{"id":"{first}","inputs":[],"id":"{last}"}}'.encode()
        assert decoder.decode("m", "", text, str(len(text))).id == last


def test_what_follows_an_id_is_no_request_of_its_own() -> None:
    decoder = HttpInferDecoder()
    whole = b'{"inputs":[]}'
    decoder.decode("m", "", whole, str(len(whole)))
    for text in (b'{"id":"a",' + whole, b',"inputs":[]}', b'{"id":"a",,"inputs":[]}'):
        with pytest.raises(InvalidRequest):
            decoder.decode("m", "", text, str(len(text)))


def test_positions_in_messages_are_those_of_the_body() -> None:
    with pytest.raises(InvalidRequest, match=r"byte 12\)"):
        decode_json(b'{"id":"abc",!"inputs":[]}')


def test_elements_in_json_are_never_remembered() -> None:
    decoder = HttpInferDecoder()
    for value in (1.0, 2.0):
        text = json.dumps(request(tensor(shape=[1], data=[value]))).encode()
        (data,) = decoder.decode("m", "", text, str(len(text))).buffers
        assert np.frombuffer(data, np.float32).tolist() == [value]


def test_the_cache_is_bounded_in_entries_and_header_size() -> None:
    decoder = HttpInferDecoder(max_entries=2, max_header_bytes=400)
    first = send(decoder, binary_request()).header
    assert send(decoder, binary_request()).header is first
    for model in ("a", "b"):
        send(decoder, binary_request(), model=model)
    assert send(decoder, binary_request()).header is not first
    long = binary_request(ignored="x" * 400)
    assert send(decoder, long).header is not send(decoder, long).header


def test_wrong_sizes_are_found_behind_a_remembered_header() -> None:
    decoder = HttpInferDecoder()
    send(decoder, binary_request())
    for data in (bytes(15), bytes(17)):
        with pytest.raises(InvalidRequest, match="unexpected"):
            send(decoder, binary_request(), data)
