"""Random bytes, values and mutations: the decoder raises Penstock's errors and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from http_requests import (
    BINARY,
    FLOATS,
    peer_body,
    request,
    tensor,
)
from penstock.errors import PenstockError
from penstock.gateway.http_request import HttpInferDecoder
from penstock.types import Array
from tensor_strategies import DATATYPES, arrays


def only_known_errors(body: bytes, length: str | None) -> None:
    try:
        HttpInferDecoder().decode("m", "1", body, length)
    except PenstockError as error:
        assert str(error)


lengths = st.none() | st.integers(-2, 300).map(str) | st.text(max_size=5)


@given(st.binary(max_size=300), lengths)
def test_random_bytes(body: bytes, length: str | None) -> None:
    only_known_errors(body, length)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
PATHS = [
    ("id",),
    ("inputs",),
    ("outputs",),
    ("parameters",),
    ("parameters", "timeout"),
    ("inputs", 0),
    *[("inputs", 0, key) for key in ("name", "datatype", "shape", "data", "parameters")],
    ("inputs", 0, "parameters", "binary_data_size"),
    ("outputs", 0, "parameters", "classification"),
    ("outputs", 0, "parameters", "binary_data"),
]


@given(st.sampled_from(PATHS), json_values, st.booleans(), st.sampled_from(DATATYPES))
def test_any_value_in_any_place(
    path: tuple[Any, ...], value: Any, binary: bool, datatype: str
) -> None:
    given_as = {"data": None, "parameters": dict(BINARY)} if binary else {"parameters": {}}
    body: Any = request(
        tensor(datatype=datatype, **given_as),
        id="x",
        parameters={},
        outputs=[{"name": "Y", "parameters": {}}],
    )
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    text = json.dumps(body).encode()
    only_known_errors(text + FLOATS.tobytes() * binary, str(len(text)) if binary else None)


@given(
    arrays(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
    st.integers(-3, 3),
)
def test_mutated_requests_of_tritonclient(
    typed: tuple[str, Array], with_id: bool, cuts: list[tuple[int, int, bytes]], shift: int
) -> None:
    body, length = peer_body([typed], request_id="some-id" if with_id else "")
    for at, removed, inserted in cuts:
        body = body[:at] + inserted + body[at + removed :]
    only_known_errors(body, None if length is None else str(int(length) + shift))
