"""Regions that clients register, and requests whose tensors lie there: both wires, in and out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2

from http_requests import decode_json, request, tensor
from pending import pending
from penstock.errors import AlreadyExists, InvalidRequest, NotFound, Unavailable, Unsupported
from penstock.gateway import client_memory
from penstock.gateway.client_memory import ClientMemory, IntoRegions, unwrapped
from penstock.gateway.client_memory_api import SystemMemoryApi, memory_routes
from penstock.gateway.grpc_request import GrpcInferDecoder
from penstock.gateway.http_response import encode_http_infer
from penstock.gateway.route_table import RouteTable
from penstock.tensors import serialize_bytes
from penstock.types import (
    DEFAULT_TENANT,
    Array,
    Buffer,
    InferHeader,
    InferResponse,
    OutputTensor,
    RegionRef,
    RequestedOutput,
    TensorSpec,
)
from penstock.workers.client_regions import RegionInput
from penstock.workers.copy_in import JOIN_BELOW_BYTES
from region_files import region_file

pytestmark = pytest.mark.extension("system_shared_memory")

pb: Any = service_pb2
IN_R = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
CONTENT = np.arange(4096, dtype=np.float32).tobytes()


@pytest.fixture
def memory() -> Iterator[ClientMemory]:
    """With the region `r` of 16 KiB."""
    memory = ClientMemory(allowed=True)
    with region_file(CONTENT) as (key, _):
        memory.register("r", key, 0, len(CONTENT))
        yield memory


def spec_in(region: str, offset: int, byte_size: int, datatype: str = "FP32") -> TensorSpec:
    shape = (byte_size // 4,) if datatype == "FP32" else (2,)
    return TensorSpec("X", datatype, shape, RegionRef(region, offset, byte_size))


def attach(
    memory: ClientMemory,
    *inputs: TensorSpec,
    outputs: Any = (),
    at_once: bool = False,
    tenant: str = DEFAULT_TENANT,
) -> Any:
    """The buffers of a request of these inputs, and what encodes it: the data that are left for the response."""
    header = InferHeader("m", "", inputs, tuple(outputs))
    buffers: list[Buffer] = [b"here"] * len(inputs)
    return memory.attach(
        header,
        buffers,
        lambda _, outputs: repr(outputs).encode(),
        at_once=at_once,
        tenant=tenant,
    )


# ── what is registered ──────────────────────────────────────────────────────────────────────────────────────────────


def test_regions_are_registered_shown_and_forgotten(memory: ClientMemory) -> None:
    (region,) = memory.status("r")
    with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
        memory.register("r", region.key, 0, 1)
    memory.register("s", region.key, 8, 4)
    assert [(r.name, r.offset, r.byte_size) for r in memory.status()] == [
        ("r", 0, 16384),
        ("s", 8, 4),
    ]
    memory.unregister("r")
    memory.unregister("r")
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'r'"):
        memory.status("r")
    memory.unregister()
    assert memory.status() == []


def test_without_the_flag_everything_says_how_to_switch_it_on() -> None:
    memory = ClientMemory(allowed=False)
    for use in (
        lambda: memory.register("r", "/r", 0, 1),
        memory.status,
        memory.unregister,
        lambda: attach(memory, spec_in("r", 0, 4)),
        lambda: attach(memory, outputs=[RequestedOutput("Y", region=RegionRef("r", 0, 1))]),
    ):
        with pytest.raises(
            Unsupported, match=r"Client shared memory is disabled.*--allow-client-shm"
        ):
            use()


@pytest.mark.parametrize("name", ["", "x" * 1025])
def test_a_region_has_a_name_of_some_length(memory: ClientMemory, name: str) -> None:
    with pytest.raises(InvalidRequest, match="'region name' is necessary"):
        memory.register(name, "/r", 0, 1)


def test_the_number_of_regions_is_bounded(
    monkeypatch: pytest.MonkeyPatch, memory: ClientMemory
) -> None:
    key = memory.status("r")[0].key
    monkeypatch.setattr(client_memory, "MAX_REGIONS", 2)
    few = ClientMemory(allowed=True)
    few.register("a", key, 0, 1)
    few.register("b", key, 0, 1)
    with pytest.raises(Unavailable, match="there are 2 already"):
        few.register("c", key, 0, 1)
    few.unregister("a")
    few.register("c", key, 0, 1)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("status", ("GET",)),
        ("register", ("POST",)),
        ("region/r/status", ("GET",)),
        ("region/register/unregister", ("POST",)),
        ("region//status", ()),
        ("region/r", ()),
        ("region/a/b/status", ()),
        ("region/r/status/more", ()),
    ],
)
def test_paths(path: str, found: tuple[str, ...], memory: ClientMemory) -> None:
    table = RouteTable(memory_routes("/v2/systemsharedmemory", SystemMemoryApi(memory)))
    if found:
        assert table.methods(f"/v2/systemsharedmemory/{path}") == found
    else:
        with pytest.raises(NotFound, match="unknown route"):
            table.methods(f"/v2/systemsharedmemory/{path}")


# ── inputs and outputs ──────────────────────────────────────────────────────────────────────────────────────────────


def test_large_inputs_stay_in_their_region_until_the_batch_is_made(memory: ClientMemory) -> None:
    large = spec_in("r", 4, JOIN_BELOW_BYTES)
    small = spec_in("r", 4, JOIN_BELOW_BYTES - 4)
    inputs, _ = attach(memory, large, TensorSpec("Z", "FP32", (1,)), small)
    assert isinstance(inputs[0], RegionInput)
    view = memoryview(bytearray(len(inputs[0])))
    inputs[0].read_into(view)
    assert view == CONTENT[4 : 4 + JOIN_BELOW_BYTES]
    assert attach(memory, large, at_once=True)[0] == [bytes(view)]
    assert inputs[1:] == [b"here", CONTENT[4:JOIN_BELOW_BYTES]]


def test_requests_under_way_outlive_the_registration(memory: ClientMemory) -> None:
    (there,), encode = attach(
        memory,
        spec_in("r", 0, 8192),
        outputs=[RequestedOutput("Y", region=RegionRef("r", 8192, 4))],
    )
    (key,) = [region.key for region in memory.status()]
    memory.unregister()
    view = memoryview(bytearray(8192))
    there.read_into(view)
    assert view == CONTENT[:8192]
    encode(pending({"X": np.zeros((1, 1), np.float32)}), [OutputTensor("Y", "FP32", (1,), b"abcd")])
    memory.register("r", key, 8192, 4)
    assert attach(memory, spec_in("r", 0, 4))[0] == [b"abcd"]


def test_strings_are_checked_when_they_come(memory: ClientMemory) -> None:
    path = "/dev/shm/" + memory.status("r")[0].key.lstrip("/")
    strings = serialize_bytes([b"first", b""])
    with open(path, "r+b") as file:
        file.write(strings)
    (data,), _ = attach(memory, spec_in("r", 0, len(strings), "BYTES"))
    assert data == strings
    with pytest.raises(InvalidRequest, match="for inference input 'X'"):
        attach(memory, spec_in("r", 0, len(strings) - 1, "BYTES"))
    many = TensorSpec("X", "BYTES", (2**20 + 1,), RegionRef("r", 0, 4))
    with pytest.raises(InvalidRequest, match="input 'X' has 1048577 strings in shared memory"):
        attach(memory, many)


def test_what_is_not_there_is_told_at_once(memory: ClientMemory) -> None:
    sides: list[Callable[[RegionRef], object]] = [
        lambda ref: attach(memory, TensorSpec("X", "FP32", (1,), ref)),
        lambda ref: attach(memory, outputs=[RequestedOutput("Y", region=ref)]),
    ]
    for side in sides:
        with pytest.raises(NotFound, match="Unable to find shared memory region: 's'"):
            side(RegionRef("s", 0, 4))
        with pytest.raises(InvalidRequest, match="Invalid offset for shared memory region: 'r'"):
            side(RegionRef("r", 16384, 0))
        with pytest.raises(InvalidRequest, match=r"Invalid offset \+ byte size .*: 'r'"):
            side(RegionRef("r", 16380, 8))
    os.truncate("/dev/shm/" + memory.status("r")[0].key.lstrip("/"), 10)
    for region in (RegionRef("r", 8, 4), RegionRef("r", 0, JOIN_BELOW_BYTES)):
        with pytest.raises(InvalidRequest, match="'r' has been made smaller"):
            attach(memory, TensorSpec("X", "FP32", (1,), region))


def test_outputs_go_into_their_region_and_others_into_the_response(memory: ClientMemory) -> None:
    _, encode = attach(
        memory, outputs=[RequestedOutput("Y", region=RegionRef("r", 8, 100)), RequestedOutput("Z")]
    )
    assert isinstance(encode, IntoRegions)
    assert unwrapped(encode) is unwrapped(unwrapped(encode))
    stored = OutputTensor("Y", "UINT8", (3,), b"abc")
    other = OutputTensor("Z", "UINT8", (1,), b"z")
    some = pending({"X": np.zeros((1, 1), np.float32)})
    left = OutputTensor("Y", "UINT8", (3,), b"", RegionRef("r", 8, 3))
    assert encode(some, [stored, other]) == repr([left, other]).encode()
    assert attach(memory, spec_in("r", 4, 12))[0] == [CONTENT[4:8] + b"abc" + CONTENT[11:16]]
    large = OutputTensor("Y", "UINT8", (101,), bytes(101))
    with pytest.raises(
        InvalidRequest,
        match=r"specified with the request for output 'Y' \(100 bytes\) should be at least 101",
    ):
        encode(some, [large])
    os.truncate("/dev/shm/" + memory.status("r")[0].key.lstrip("/"), 10)
    with pytest.raises(InvalidRequest, match="'r' has been made smaller"):
        encode(some, [stored])


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shared(**changes: Any) -> dict[str, Any]:
    return tensor(data=None, parameters={**IN_R, **changes})


def test_http_names_regions_of_inputs_and_outputs() -> None:
    wanted = {"name": "Y", "parameters": {**IN_R, "shared_memory_offset": 7, "binary_data": False}}
    sent = tensor(name="Z")
    decoded = decode_json(
        request(shared(shared_memory_offset=3), sent, outputs=[wanted, {"name": "W"}])
    )
    header = decoded.header
    assert header.names_regions
    assert header.inputs[0] == TensorSpec("X", "FP32", (1, 4), RegionRef("r", 3, 16))
    assert header.inputs[1].region is None
    assert header.outputs == (
        RequestedOutput("Y", binary=False, region=RegionRef("r", 7, 16)),
        RequestedOutput("W"),
    )
    assert [len(buffer) for buffer in decoded.buffers] == [0, 16]
    assert not decode_json(request()).header.names_regions


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (request(tensor(parameters=IN_R)), "But set 'data' 'shared_memory_region'"),
        (request(shared(binary_data_size=16)), "But set 'binary_data_size' 'shared_memory_region'"),
        (request(shared(shared_memory_region=3)), "invalid value type for 'shared_memory_region'"),
        (request(shared(shared_memory_byte_size="16")), "'shared_memory_byte_size' .* 'X'"),
        (request(shared(shared_memory_offset=1.5)), "'shared_memory_offset' .* 'X'"),
        (request(shared(shared_memory_offset=True)), "'shared_memory_offset' .* 'X'"),
        (request(shared(shared_memory_offset=-1)), "must not be negative, got -1"),
        (request(shared(shared_memory_byte_size=-16)), "must not be negative, got -16"),
        (request(shared(shared_memory_byte_size=None)), "must be specified along with"),
        (request(shared(shared_memory_region=None)), "can not be specified without"),
        (request(shared(shared_memory_byte_size=12)), "'X' for model 'm'. Expected 16, got 12"),
        (request(shared(shared_memory_byte_size=20)), "'X' for model 'm'. Expected 16, got 20"),
        (
            request(outputs=[{"name": "Y", "parameters": {**IN_R, "classification": 1}}]),
            "Output 'Y' can't set both 'shared_memory_region' and 'classification'",
        ),
        (
            request(outputs=[{"name": "Y", "parameters": {**IN_R, "binary_data": True}}]),
            "Output 'Y' can't set both 'shared_memory_region' and 'binary_data'",
        ),
    ],
)
def test_http_parameters_that_make_no_sense(body: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        decode_json(body)


def test_http_answers_say_where_an_output_is() -> None:
    outputs = (
        OutputTensor("Y", "FP32", (1,), b"", RegionRef("r", 8, 4)),
        OutputTensor("Z", "FP32", (1,), b"1234"),
    )
    asked = (RequestedOutput("Y", region=RegionRef("r", 8, 100)), RequestedOutput("Z"))
    body, length = encode_http_infer(InferResponse("m", "1", "", outputs), asked, True)
    assert length is not None
    assert body[length:] == b"1234"
    shown, other = json.loads(body[:length])["outputs"]
    assert shown == {
        "name": "Y",
        "datatype": "FP32",
        "shape": [1],
        "parameters": {
            "shared_memory_region": "r",
            "shared_memory_offset": 8,
            "shared_memory_byte_size": 4,
        },
    }
    assert other["parameters"] == {"binary_data_size": 4}


# ── gRPC ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def message(*inputs: Any, outputs: Any = ()) -> Any:
    """As tritonclient makes it of InferInputs and InferRequestedOutputs."""
    made = pb.ModelInferRequest(model_name="m")
    for each in inputs:
        made.inputs.append(each._get_tensor())
        if each._get_content() is not None:
            made.raw_input_contents.append(each._get_content())
    made.outputs.extend(output._get_tensor() for output in outputs)
    return made


def in_region(name: str = "X", datatype: str = "FP32", offset: int = 0) -> Any:
    tensor = InferInput(name, [4], datatype)
    return tensor.set_shared_memory("r", 16, offset)


def sent(name: str, array: Array) -> Any:
    return InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)


def test_grpc_names_regions_of_inputs_and_outputs() -> None:
    words = np.array([b"a", b"bc"], object)
    output = InferRequestedOutput("Y")
    output.set_shared_memory("r", 100, 7)
    decoder = GrpcInferDecoder()
    made = message(
        in_region("A", "BYTES", 3),
        sent("B", words),
        in_region("C"),
        outputs=[output, InferRequestedOutput("W")],
    )
    header, _, first = decoder.decode(made.SerializeToString())
    again, _, second = decoder.decode(made.SerializeToString())
    assert again is header
    for buffers in (first, second):
        assert [bytes(buffer) for buffer in buffers] == [b"", serialize_bytes(words), b""]
    assert [tensor.region for tensor in header.inputs] == [
        RegionRef("r", 3, 16),
        None,
        RegionRef("r", 0, 16),
    ]
    assert header.outputs == (
        RequestedOutput("Y", region=RegionRef("r", 7, 100)),
        RequestedOutput("W"),
    )
    made.raw_input_contents.append(b"more")
    with pytest.raises(InvalidRequest, match="expected 1 raw input contents"):
        decoder.decode(made.SerializeToString())


def test_grpc_typed_contents_beside_regions() -> None:
    made = message(in_region("A"))
    made.inputs.add(name="B", datatype="FP32", shape=[1]).contents.fp32_contents.append(2)
    _, _, buffers = GrpcInferDecoder().decode(made.SerializeToString())
    assert buffers == [b"", np.float32(2).tobytes()]
    made.inputs[0].contents.fp32_contents.append(1)
    with pytest.raises(InvalidRequest, match=r"unexpected 'content' .* tensor 'A' for model 'm'"):
        GrpcInferDecoder().decode(made.SerializeToString())


@pytest.mark.parametrize(
    ("key", "kind", "value", "says"),
    [
        ("region", "int64_param", 1, "'shared_memory_region' .* 'X', expected string_param."),
        ("byte_size", "string_param", "16", "'shared_memory_byte_size' .* expected int64_param."),
        ("byte_size", "bool_param", True, "'shared_memory_byte_size' .* expected int64_param."),
        ("offset", "double_param", 1.0, "'shared_memory_offset' .* 'X', expected int64_param."),
        ("offset", "int64_param", -4, "must not be negative, got -4"),
        ("byte_size", "int64_param", 12, "byte size mismatch .* Expected 16, got 12"),
        ("region", None, None, "'shared_memory_byte_size' can not be specified without"),
        ("byte_size", None, None, "'shared_memory_byte_size' must be specified along with"),
    ],
)
def test_grpc_parameters_that_make_no_sense(
    key: str, kind: str | None, value: object, says: str
) -> None:
    made = message(in_region())
    parameters = made.inputs[0].parameters
    if kind is None:
        del parameters[f"shared_memory_{key}"]
    else:
        setattr(parameters[f"shared_memory_{key}"], kind, value)
    with pytest.raises(InvalidRequest, match=says):
        GrpcInferDecoder().decode(made.SerializeToString())


def test_grpc_classes_can_not_go_into_a_region() -> None:
    output = InferRequestedOutput("Y", class_count=2)._get_tensor()
    output.parameters["shared_memory_region"].string_param = "r"
    output.parameters["shared_memory_byte_size"].int64_param = 64
    made = pb.ModelInferRequest(model_name="m", outputs=[output])
    with pytest.raises(InvalidRequest, match="both 'shared_memory_region' and 'classification'"):
        GrpcInferDecoder().decode(made.SerializeToString())


def test_a_tenants_regions_are_there_for_nobody_else(memory: ClientMemory) -> None:
    """Neither by name, nor by the memory that they lie in; and its names are not taken for others."""
    (mine,) = memory.status("r")
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'r'"):
        memory.status("r", "other")
    assert memory.status("", "other") == []
    for at_once in (True, False):
        with pytest.raises(NotFound, match="Unable to find shared memory region: 'r'"):
            attach(memory, spec_in("r", 0, 4), at_once=at_once, tenant="other")
    with pytest.raises(NotFound, match="there is none of that key") as known:
        memory.register("s", mine.key, 0, 1, "other")
    with pytest.raises(NotFound) as unknown:
        memory.register("s", mine.key + "x", 0, 1, "other")
    # the same words, so that they tell nothing
    assert str(known.value).replace(mine.key, "") == str(unknown.value).replace(mine.key + "x", "")
    memory.unregister("r", "other")
    memory.unregister("", "other")
    assert memory.status() == [mine]
