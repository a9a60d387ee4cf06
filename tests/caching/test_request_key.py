"""Keys: equal for what a model can't tell apart, different for all else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pending import Heard, NoQueue, joined
from penstock.caching import request_key
from penstock.caching.request_key import KEY_BYTES, KeyMaker, finish
from penstock.types import Parameter
from penstock.workers.request import PendingRequest, RequestPlan

pytestmark = pytest.mark.extension("response_cache")

MAKER = KeyMaker(("m", "1", b"digest", b"load"))


def request(
    *tensors: tuple[str, str, tuple[int, ...], bytes],
    outputs: tuple[str, ...] = (),
    classes: Mapping[str, int] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    tenant: str = "default",
    id: str = "",
) -> PendingRequest:
    """One of these inputs: name, datatype, shape, bytes."""
    plan = RequestPlan(
        rows=1,
        shape_key=(),
        input_names=tuple(name for name, _, _, _ in tensors),
        datatypes=tuple(datatype for _, datatype, _, _ in tensors),
        shapes=tuple(shape for _, _, shape, _ in tensors),
        sizes_bytes=tuple(-1 for _ in tensors),
        order=None,
        output_names=outputs,
        classes=classes or {},
        parameters=dict(parameters or {}),
    )
    buffers = [data for _, _, _, data in tensors]
    return PendingRequest(plan, id, buffers, joined, Heard(), 0, NoQueue(), 0, tenant)


def key(asked: PendingRequest, maker: KeyMaker = MAKER) -> bytes:
    """The key."""
    return finish(maker.begin(asked), asked)


X = ("X", "FP32", (1, 2), b"12345678")
DIFFERENT = {
    "the same": request(X),
    "name": request(("Y", *X[1:])),
    "datatype": request(("X", "INT32", (1, 2), b"12345678")),
    "shape": request(("X", "FP32", (2, 1), b"12345678")),
    "bytes": request(("X", "FP32", (1, 2), b"12345679")),
    "one input more": request(X, ("Y", "FP32", (0,), b"")),
    "the other order": request(("Y", "FP32", (0,), b""), X),
    "outputs": request(X, outputs=("A",)),
    "more outputs": request(X, outputs=("A", "B")),
    "other outputs' order": request(X, outputs=("B", "A")),
    "outputs that look alike": request(X, outputs=("AB",)),
    "parameter": request(X, parameters={"p": 1}),
    "parameter's value": request(X, parameters={"p": 2}),
    "parameter's type": request(X, parameters={"p": True}),
    "parameter's other type": request(X, parameters={"p": 1.0}),
    "parameter's text": request(X, parameters={"p": "1"}),
    "parameter's name": request(X, parameters={"q": 1}),
    "tenant": request(X, tenant="other"),
    "tenant of no name": request(X, tenant=""),
}


def test_all_that_matters_matters() -> None:
    keys = {name: key(asked) for name, asked in DIFFERENT.items()}
    assert len(set(keys.values())) == len(keys)
    assert all(len(found) == KEY_BYTES for found in keys.values())


def test_what_does_not_matter_doesn_t() -> None:
    same = [
        request(X),
        request(X, id="another"),
        request(X, parameters={"priority": 3, "timeout": 1000}),
        # made of the model's tensors afterwards
        request(X, classes={"A": 3}),
    ]
    assert len({key(asked) for asked in same}) == 1
    assert key(request(X, parameters={"a": 1, "b": 2})) == key(
        request(X, parameters={"b": 2, "a": 1})
    )


def test_kinds_of_buffers_are_alike() -> None:
    name, datatype, shape, data = X
    plain = request(X)
    for buffer in (bytearray(data), memoryview(data), memoryview(bytearray(data)).toreadonly()):
        other = request((name, datatype, shape, data))
        other.buffers = [buffer]
        assert key(other) == key(plain)


@pytest.mark.parametrize(
    "identity",
    [
        ("m", "2", b"digest", b"load"),
        ("n", "1", b"digest", b"load"),
        ("m", "1", b"other", b"load"),
        ("m", "1", b"digest", b"other"),
        ("m1", "", b"digest", b"load"),
    ],
)
def test_models_differ(identity: tuple[Any, ...]) -> None:
    assert key(request(X), KeyMaker(identity)) != key(request(X))


BYTES = st.binary(max_size=6)


@given(st.tuples(BYTES, BYTES, st.text(max_size=4)), st.tuples(BYTES, BYTES, st.text(max_size=4)))
def test_no_two_are_alike_by_concatenation(
    one: tuple[bytes, bytes, str], two: tuple[bytes, bytes, str]
) -> None:
    def of(parts: tuple[bytes, bytes, str]) -> bytes:
        first, second, tenant = parts
        return key(
            request(("A", "BYTES", (1,), first), ("B", "BYTES", (1,), second), tenant=tenant or "t")
        )

    assert (of(one) == of(two)) == ((*one[:2], one[2] or "t") == (*two[:2], two[2] or "t"))


def test_plans_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_key, "MAX_REMEMBERED", 2)
    maker = KeyMaker(("m", "1", b"digest", b"load"))
    asked = [request(X, parameters={"p": n}) for n in range(5)]
    first = [key(each, maker) for each in asked]
    assert [key(each, maker) for each in asked] == first
    assert len(set(first)) == 5
    # what is long is hashed anew each time
    long = request(X, parameters={"p": "x" * 10_000})
    assert key(long, maker) == key(long, maker) not in first
