"""Requests that are small and want much: bombs in compression, JSON, protobuf, shapes, names. Each is refused at once,
nothing grows, and nobody else notices."""

from __future__ import annotations

import functools
import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import grpc
import numpy as np
import pytest

from attacks import bystander, resident_mib
from grpc_calls import failure, infer_request, pb
from served import Served, json_request

pytestmark = pytest.mark.e2e

MIB: Final = 1 << 20
TENSOR: Final = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}


@pytest.fixture(autouse=True)
def others(victim: Served) -> Iterator[None]:
    """A polite client is there throughout."""
    with bystander(victim, mib=300):
        yield


@pytest.fixture(scope="module")
def rpc_channel(victim: Served) -> Iterator[grpc.Channel]:
    """To the victim."""
    with grpc.insecure_channel(victim.grpc) as channel:
        yield channel


@functools.cache
def bomb(encoding: str, times: int = 1) -> bytes:
    """80 MiB of zeros, compressed, and again."""
    make = zlib.compressobj(6, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    data = b"".join(make.compress(bytes(MIB)) for _ in range(80)) + make.flush()
    for _ in range(times - 1):
        data = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    return data


# ── compression ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_decompression_bombs(victim: Served, encoding: str) -> None:
    """A body of 80 KiB that would be one of 80 MiB, where 8 are allowed; over each door that inflates."""
    data = bomb(encoding)
    before = resident_mib(victim)
    paths = ("/v2/models/puppet/infer", "/v2/repository/index", "/v2/logging")
    for path in (*paths, "/v1/models/puppet:predict"):
        answer = victim.request("POST", path, data, {"content-encoding": encoding})
        assert answer.status == 413, path
        assert "inflates to over 8388608 bytes" in answer.error
    assert resident_mib(victim) - before < 70


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_decompression_bombs_over_grpc(
    victim: Served, rpc_channel: grpc.Channel, compression: grpc.Compression
) -> None:
    before = resident_mib(victim)
    call = rpc_channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as refused:
        call(bytes(80 * MIB), compression=compression, timeout=30)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert resident_mib(victim) - before < 70


def test_nested_bombs(victim: Served) -> None:
    """One layer is what a content-encoding says: of what is inside nothing more is unpacked."""
    data = bomb("gzip", times=2)
    assert len(data) < 20_000
    answer = victim.infer("puppet", data, content_encoding="gzip")
    assert answer.status == 400
    for listed in ("gzip, gzip", "gzip,gzip,gzip"):
        assert victim.infer("puppet", data, content_encoding=listed).status == 501


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────────

DEEP: Final = 200_000


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/puppet/infer",
        "/v2/models/puppet/generate",
        "/v1/models/puppet:predict",
        "/v2/repository/index",
        "/v2/repository/models/puppet/load",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/systemsharedmemory/region/x/register",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b'{"parameters":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,1],"data":'
        + b"[" * DEEP
        + b"]" * DEEP
        + b"}]}",
        b'{"x":' + b"9" * 1_000_000 + b"}",
        b'{"x":1e' + b"9" * 100_000 + b"}",
        b'{"\xff":1}',
        b'{"\\ud800":"\\udfff"}',
    ],
    ids=["lists", "objects", "parameters", "data", "digits", "exponent", "no UTF-8", "surrogates"],
)
def test_json_bombs(victim: Served, path: str, body: bytes) -> None:
    """200,000 deep, or a number of a million digits: no stack and no time for it."""
    status = victim.request("POST", path, body).status
    # what has no meaning there may be ignored
    assert 400 <= status < 500 or (status == 200 and path.endswith("/load"))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2**31, 2**31, 4]},
        {"shape": [2**62, 4], "data": []},
        {"shape": [-1, 1]},
        {"shape": [0, 2**62], "data": []},
        {"shape": [1, 0, 2**63 - 1], "data": []},
        {"shape": [2**63 - 1], "data": []},
        {"shape": [1] * 100_000},
        {"shape": [10**400]},
        {"name": "n" * MIB},
        {"datatype": "d" * MIB},
        {"parameters": {f"p{n}": n for n in range(20_000)}, "shape": [1, -1]},
        {"parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 2**64}},
        {"parameters": {"binary_data_size": 2**63}},
    ],
)
def test_giant_tensors(victim: Served, changes: dict[str, Any]) -> None:
    answer = victim.infer("puppet", {"inputs": [{**TENSOR, **changes}]})
    assert answer.status in (400, 404), answer.body[:300]
    # what is quoted of it is bounded
    assert len(answer.body) < 8192


def test_giant_ids_are_only_echoed(victim: Served) -> None:
    name = "i" * MIB
    answer = victim.infer("puppet", json_request(1.0, id=name))
    assert answer.status == 200
    assert answer.json["id"] == name


@pytest.mark.parametrize("count", [0, -1, 2**31, 2**63, 10**30])
def test_giant_classifications(victim: Served, count: int) -> None:
    asked = {"name": "Y", "parameters": {"classification": count}}
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}
    answer = victim.infer("classes", {"inputs": [tensor], "outputs": [asked]})
    if answer.status == 200:
        # no more than there are
        (output,) = answer.json["outputs"]
        assert len(output["data"]) == 4
    else:
        assert answer.status == 400


# ── protobuf ────────────────────────────────────────────────────────────────────────────────────────────────────────


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def nested(depth: int) -> bytes:
    """Groups in groups in an unknown field."""
    return varint(99 << 3 | 3) * depth + varint(99 << 3 | 4) * depth


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a\x06puppet" + nested(100_000),
        varint(99 << 3 | 3) * 1_000_000,
        b"\x0a" + varint(2**63) + b"x",
        b"\x0a" + b"\xff" * 1000,
        # 300,000 empty inputs, outputs, parameters
        b"\x0a\x06puppet" + field(5, b"") * 300_000,
        b"\x0a\x06puppet" + field(6, b"") * 300_000,
        b"\x0a\x06puppet" + field(7, b"") * 300_000,
        # one input whose shape has a million dimensions, and one whose contents are 4 million numbers for one place
        b"\x0a\x06puppet"
        + field(5, field(1, b"X") + field(2, b"FP32") + field(3, b"\1" * 1_000_000)),
        b"\x0a\x06puppet"
        + field(
            5,
            field(1, b"X")
            + field(2, b"FP32")
            + field(3, b"\1\1")
            + field(5, field(6, bytes(4 * MIB))),
        ),
    ],
    ids=[
        *("groups", "open groups", "a length of 2⁶³", "a varint without end", "inputs", "outputs"),
        *("parameters", "dimensions", "contents"),
    ],
)
def test_protobuf_bombs(rpc_channel: grpc.Channel, message: bytes) -> None:
    code, text = failure(rpc_channel, "ModelInfer", message)
    assert code == "INVALID_ARGUMENT", text
    assert len(text) < 8192


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2**31, 2**31, 4]},
        {"shape": [2**62, 4], "raw": [b""]},
        {"shape": [-(2**63)], "raw": [b""]},
        {"shape": [0, 2**62], "raw": [b""]},
        {"shape": [1, 0, 2**63 - 1], "raw": [b""]},
        {"name": "n" * MIB},
        {"datatype": "d" * MIB},
        {"model_version": "9" * MIB},
    ],
)
def test_giant_tensors_over_grpc(rpc_channel: grpc.Channel, changes: dict[str, Any]) -> None:
    code, text = failure(rpc_channel, "ModelInfer", infer_request(**changes))
    assert code in ("INVALID_ARGUMENT", "NOT_FOUND"), text
    assert len(text) < 8192


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([1, 1], struct.pack("<I", 2**32 - 1)),
        ([1, 1], struct.pack("<I", 2**31) + b"x" * 100),
        ([4, 1], struct.pack("<I", 0) * 3),
        ([1, 1], struct.pack("<I", 4) + b"abc"),
        ([4, 2**60], struct.pack("<I", 0)),
    ],
)
def test_strings_whose_lengths_lie(
    rpc_channel: grpc.Channel, shape: list[int], data: bytes
) -> None:
    request = infer_request("text", datatype="BYTES", shape=shape, raw=[data])
    assert failure(rpc_channel, "ModelInfer", request)[0] == "INVALID_ARGUMENT"


# ── shared memory ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "offset", "size"),
    [
        ("../../etc/passwd", 0, 1),
        ("/../etc/passwd", 0, 1),
        ("/a/b", 0, 1),
        ("", 0, 1),
        ("..", 0, 1),
        ("a\0b", 0, 1),
        ("k" * 100_000, 0, 1),
        ("/none", 2**63, 1),
        ("/none", 0, 2**64 - 1),
        ("/none", 2**64 - 1, 2**64 - 1),
    ],
)
def test_regions_outside_of_shared_memory(
    victim: Served, rpc_channel: grpc.Channel, key: str, offset: int, size: int
) -> None:
    body = {"key": key, "offset": offset, "byte_size": size}
    answer = victim.request("POST", "/v2/systemsharedmemory/region/r/register", body)
    assert answer.status in (400, 404)
    assert len(answer.body) < 8192
    if offset < 2**64 and size < 2**64:
        request = pb.SystemSharedMemoryRegisterRequest(
            name="r", key=key, offset=offset, byte_size=size
        )
        code, _ = failure(rpc_channel, "SystemSharedMemoryRegister", request)
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert victim.get("/v2/systemsharedmemory/status").json == []


def test_places_beyond_a_region(victim: Served, rpc_channel: grpc.Channel) -> None:
    for offset, size in ((2**64 - 8, 8), (2**63, 2**63), (0, 2**63 - 1)):
        parameters = {
            "shared_memory_region": "r",
            "shared_memory_offset": offset,
            "shared_memory_byte_size": size,
        }
        body = {"inputs": [{**TENSOR, "parameters": parameters, "data": None}]}
        assert victim.infer("puppet", json.dumps(body)).status in (400, 404)


def test_a_large_request_is_still_answered(victim: Served) -> None:
    """What is legal is not what these guards are against."""
    values = np.ones((1, 200_000), np.float32).ravel().tolist()
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 200_000], "data": values}
    assert victim.infer("puppet", {"inputs": [tensor]}).status == 200
