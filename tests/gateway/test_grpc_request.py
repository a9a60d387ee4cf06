"""ModelInferRequest bytes, as tritonclient's own messages make them, in any order of fields, and mutilated."""

from __future__ import annotations

import random
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from penstock.errors import InvalidRequest, PenstockError, Unsupported
from penstock.gateway.grpc_request import CONTENTS, COPY_BELOW_BYTES, GrpcInferDecoder
from penstock.gateway.grpc_response import varint
from penstock.types import Array, InferHeader
from tensor_strategies import arrays, to_wire

pb: Any = service_pb2
quick = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
names = st.text(max_size=5)
ids = st.text(max_size=200)
integers = st.integers(-(2**63), 2**63 - 1)
parameters = st.dictionaries(
    names,
    st.one_of(
        st.booleans().map(lambda v: ("bool_param", v)),
        integers.map(lambda v: ("int64_param", v)),
        st.text(max_size=5).map(lambda v: ("string_param", v)),
        st.floats(allow_nan=False).map(lambda v: ("double_param", v)),
        st.integers(0, 2**64 - 1).map(lambda v: ("uint64_param", v)),
    ),
    max_size=3,
)
tensors = st.lists(st.tuples(names, arrays()), max_size=4, unique_by=lambda named: named[0])


def fields_of(message: Any) -> list[bytes]:
    """A serialized message's top-level fields, each of them whole."""
    data = message.SerializeToString()
    found = []
    while data:
        length, at = 0, 1
        while True:
            byte = data[at]
            length |= (byte & 0x7F) << 7 * (at - 1)
            at += 1
            if byte < 0x80:
                break
        found.append(data[: at + length])
        data = data[at + length :]
    return found


def shuffled(message: Any, order: random.Random) -> bytes:
    """The fields in another order, in which only those of one number keep theirs."""
    fields = fields_of(message)
    numbers = [field[0] for field in fields]
    order.shuffle(numbers)
    queues = {tag: [field for field in fields if field[0] == tag] for tag in set(numbers)}
    return b"".join(queues[tag].pop(0) for tag in numbers)


def request_of(
    inputs: list[tuple[str, tuple[str, Array]]], *, raw: bool = True, **fields: Any
) -> Any:
    message = pb.ModelInferRequest(model_name="m", **fields)
    for name, (datatype, array) in inputs:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            message.raw_input_contents.append(to_wire(datatype, array))
        else:
            getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
            tensor.contents.SetInParent()
    return message


@quick
@given(tensors, ids, names, parameters, st.lists(names, max_size=3), st.randoms())
def test_whatever_a_client_sends_is_read_as_it_meant_it(
    inputs: list[tuple[str, tuple[str, Array]]],
    request_id: str,
    version: str,
    given_parameters: dict[str, tuple[str, Any]],
    outputs: list[str],
    order: random.Random,
) -> None:
    message = request_of(inputs, id=request_id, model_version=version)
    for key, (kind, value) in given_parameters.items():
        setattr(message.parameters[key], kind, value)
    for name in outputs:
        message.outputs.add(name=name)
    header, got_id, buffers = GrpcInferDecoder().decode(shuffled(message, order))
    assert (header.model_name, header.model_version, got_id) == ("m", version, request_id)
    assert [(t.name, t.datatype, t.shape) for t in header.inputs] == [
        (name, datatype, array.shape) for name, (datatype, array) in inputs
    ]
    assert [bytes(b) for b in buffers] == [to_wire(*typed) for _, typed in inputs]
    assert header.parameters == {key: value for key, (_, value) in given_parameters.items()}
    assert [output.name for output in header.outputs] == outputs


typed_arrays = arrays(sorted(CONTENTS)).filter(lambda typed: typed[1].size > 0)


@quick
@given(
    st.lists(st.tuples(names, typed_arrays), min_size=1, max_size=3, unique_by=lambda n: n[0]),
    st.randoms(),
)
def test_typed_contents_become_the_same_bytes(
    inputs: list[tuple[str, tuple[str, Array]]], order: random.Random
) -> None:
    message = request_of(inputs, raw=False, id="i")
    header, _, buffers = GrpcInferDecoder().decode(shuffled(message, order))
    for tensor, (_, (datatype, array)), buffer in zip(header.inputs, inputs, buffers, strict=True):
        assert (tensor.datatype, tensor.shape) == (datatype, array.shape)
        if array.dtype.kind == "f":
            # protobuf may quieten NaNs
            got = np.frombuffer(buffer, array.dtype).reshape(array.shape)
            np.testing.assert_array_equal(got, array)
        else:
            assert buffer == to_wire(datatype, array)


@quick
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    decode_or_refuse(data)


@quick
@given(tensors, ids, st.data())
def test_damaged_messages_are_read_or_refused(
    inputs: list[tuple[str, tuple[str, Array]]], request_id: str, data: st.DataObject
) -> None:
    message = bytearray(request_of(inputs, id=request_id).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message)))
        match data.draw(st.sampled_from(["cut", "flip", "insert", "delete"])):
            case "cut":
                del message[at:]
            case "flip" if at < len(message):
                message[at] ^= data.draw(st.integers(1, 255))
            case "insert":
                message[at:at] = data.draw(st.binary(max_size=3))
            case _:
                del message[at : at + 1]
    decode_or_refuse(bytes(message))


def decode_or_refuse(data: bytes) -> None:
    """No other exception than ours, twice the same, and what is read is what protobuf itself reads."""
    decoder = GrpcInferDecoder()
    try:
        header, request_id, buffers = decoder.decode(data)
    except PenstockError as error:
        assert isinstance(error, InvalidRequest | Unsupported)
        assert str(error)
        with pytest.raises(type(error)):
            decoder.decode(data)
        return
    parsed = pb.ModelInferRequest.FromString(data)
    assert (parsed.model_name, parsed.model_version) == (header.model_name, header.model_version)
    assert parsed.id == request_id
    assert [tensor.name for tensor in parsed.inputs] == [tensor.name for tensor in header.inputs]
    if parsed.raw_input_contents:
        assert [bytes(b) for b in buffers] == list(parsed.raw_input_contents)
    again = decoder.decode(data)
    assert (again[0], again[1]) == (header, request_id)


# ── one header for all that repeat it ───────────────────────────────────────────────────────────────────────────────


def fp32(*values: float) -> tuple[str, Array]:
    return "FP32", np.array(values, np.float32)


def decode(decoder: GrpcInferDecoder, message: Any) -> InferHeader:
    return decoder.decode(message.SerializeToString())[0]


def test_a_repeated_header_is_one_object_whatever_id_and_bytes() -> None:
    decoder = GrpcInferDecoder()
    first = decode(decoder, request_of([("X", fp32(1, 2))], id="a"))
    assert decode(decoder, request_of([("X", fp32(3, 4))], id="b")) is first
    assert decode(decoder, request_of([("X", fp32(5, 6))])) is first
    assert decode(decoder, request_of([("X", fp32(5, 6, 7))])) is not first
    assert decode(decoder, request_of([("X", fp32(5, 6))], model_version="1")) is not first


def test_typed_contents_are_never_remembered() -> None:
    decoder = GrpcInferDecoder()
    for value in (1, 2):
        _, _, (data,) = decoder.decode(
            request_of([("X", fp32(value))], raw=False).SerializeToString()
        )
        assert struct.unpack("<f", bytes(data)) == (value,)
    assert not decoder._headers


def test_what_is_remembered_is_bounded() -> None:
    decoder = GrpcInferDecoder(max_entries=3, max_header_bytes=60)
    for number in range(20):
        decode(decoder, request_of([(f"X{number}", fp32(1))]))
        assert len(decoder._headers) <= 3
    long = request_of([("X" * 60, fp32(1))])
    assert decode(decoder, long) is not decode(decoder, long)
    assert sum(map(len, decoder._headers)) <= 3 * 60


def test_large_tensors_are_views_and_small_ones_are_not() -> None:
    small, large = b"\1" * (COPY_BELOW_BYTES - 1), b"\2" * COPY_BELOW_BYTES
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[small, large])
    for name, data in (("A", small), ("B", large)):
        message.inputs.add(name=name, datatype="UINT8", shape=[len(data)])
    data = message.SerializeToString()
    _, _, (first, second) = GrpcInferDecoder().decode(data)
    assert isinstance(first, bytes) and first == small
    assert isinstance(second, memoryview) and second.obj is data


def test_fields_this_version_does_not_know_are_skipped() -> None:
    known = request_of([("X", fp32(1))], id="i").SerializeToString()
    for unknown in (b"\x7a\x01x", b"\x82\x01\x02xy", b"\x50\x05", b"\x55abcd", b"\x51abcdefgh"):
        for data in (unknown + known, known + unknown):
            header, request_id, buffers = GrpcInferDecoder().decode(data)
            assert (header.model_name, request_id, len(buffers)) == ("m", "i", 1)


def test_of_repeated_ids_the_last_one_counts() -> None:
    data = b"\x1a\x01a" + request_of([]).SerializeToString() + b"\x1a\x01b"
    assert GrpcInferDecoder().decode(data)[1] == "b"


# ── what is wrong is said ───────────────────────────────────────────────────────────────────────────────────────────


def refused(message: Any) -> str:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(InvalidRequest) as raised:
        GrpcInferDecoder().decode(data)
    return str(raised.value)


def test_truncated_messages() -> None:
    whole = request_of([("X", fp32(1))], id="i").SerializeToString()
    assert "runs over its end" in refused(whole[:-1])
    assert "ends in a field's head" in refused(whole + b"\x3a")
    assert "ends in a field's head" in refused(whole + b"\x3a\xff")
    assert "runs over its end" in refused(whole + b"\x3a\xff\xff\xff\xff\x07")


def test_an_endless_length_costs_nothing() -> None:
    data = b"\x3a" + b"\xff" * 8_000_000
    started = time.thread_time()
    assert "is not a ModelInferRequest" in refused(data)
    # of this thread's own time, whatever else the machine does: it would be many seconds
    assert time.thread_time() - started < 1


def test_texts_that_are_not_utf8() -> None:
    assert refused(b"\x1a\x01\xff") == "the request's id is not valid UTF-8"
    assert "is not a ModelInferRequest" in refused(b"\x0a\x01\xff")


@pytest.mark.parametrize("count", [0, 2])
def test_as_many_raw_contents_as_inputs(count: int) -> None:
    message = request_of([("X", fp32(1))])
    del message.raw_input_contents[:]
    message.raw_input_contents.extend([b"1234"] * count)
    text = f"expected 1 raw input contents, one for each input, got {count}"
    assert refused(message) == text


def test_raw_and_typed_contents_together() -> None:
    message = request_of([("X", fp32(1))], raw=False)
    message.raw_input_contents.append(b"1234")
    assert refused(message) == (
        "contents field must not be specified when using raw_input_contents for 'X' for model 'm'"
    )


def test_typed_contents_of_some_inputs_only() -> None:
    message = request_of([("X", fp32(1))], raw=False)
    message.inputs.add(name="Y", datatype="FP32", shape=[1])
    assert "input 'Y': expected 1 elements in fp32_contents" in refused(message)


@pytest.mark.parametrize(
    ("datatype", "field", "values", "text"),
    [
        (
            "FP32",
            "fp32_contents",
            [1, 2],
            "expected 1 elements in fp32_contents for shape [1], got 2",
        ),
        ("FP32", "int_contents", [1], "expected 1 elements in fp32_contents for shape [1], got 0"),
        ("INT8", "int_contents", [128], "a value in int_contents is out of INT8's range"),
        ("UINT16", "uint_contents", [65536], "a value in uint_contents is out of UINT16's range"),
        ("FP16", "fp32_contents", [1], "FP16 must be sent as raw_input_contents"),
        ("BF16", "fp32_contents", [1], "BF16 must be sent as raw_input_contents"),
    ],
)
def test_typed_contents_that_do_not_fit(
    datatype: str, field: str, values: list[float], text: str
) -> None:
    message = pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="X", datatype=datatype, shape=[1])
    getattr(tensor.contents, field).extend(values)
    assert refused(message) == f"input 'X': {text}"


def test_bytes_whose_lengths_run_over_the_end() -> None:
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\x09\0\0\0abc"])
    message.inputs.add(name="S", datatype="BYTES", shape=[1])
    assert "for inference input 'S'" in refused(message)


def test_headers_that_make_no_sense() -> None:
    typed = [("X", fp32(1))]
    assert "duplicate input 'X' in request for model 'm'" in refused(request_of(typed + typed))
    unknown = request_of(typed)
    unknown.inputs[0].datatype = "FP8"
    assert refused(unknown).startswith("invalid datatype 'FP8' of input 'X', expected one of BOOL")
    negative = request_of(typed)
    negative.inputs[0].shape[:] = [-1]
    assert "negative dimension" in refused(negative)


def test_classification() -> None:
    message = request_of([])
    output = message.outputs.add(name="Y")
    output.parameters["classification"].int64_param = 3
    (requested,) = decode(GrpcInferDecoder(), message).outputs
    assert (requested.name, requested.classification) == ("Y", 3)
    for kind, value in (("int64_param", 0), ("string_param", "3"), ("bool_param", True)):
        setattr(output.parameters["classification"], kind, value)
        assert refused(message) == (
            "parameter 'classification' of output 'Y': expected an int64 of 1 or more"
        )


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**21, 2**32, 2**63])
def test_varint(value: int) -> None:
    encoded = varint(value)
    assert sum((byte & 0x7F) << 7 * at for at, byte in enumerate(encoded)) == value
    assert all(byte & 0x80 for byte in encoded[:-1]) and encoded[-1] < 0x80
