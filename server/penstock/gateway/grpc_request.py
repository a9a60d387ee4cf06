"""ModelInferRequest bytes → header, id and tensor bytes, without copying what is large.

All of a message but its id and `raw_input_contents` is repeated word for word by clients: that part is parsed once
and remembered. The walk over the message's top-level fields is the only work done on every request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError, Message

from penstock.errors import InvalidRequest
from penstock.gateway.region_parameters import check_region_size, region_ref
from penstock.gateway.request_parameters import check_parameters
from penstock.protobuf import message_class
from penstock.tensors import count_bytes_elements, element_count, serialize_bytes
from penstock.types import (
    ITEM_BYTES,
    NUMPY_DTYPES,
    Array,
    Buffer,
    InferHeader,
    Parameter,
    RegionRef,
    RequestedOutput,
    TensorSpec,
)

TAG_ID: Final = 0x1A  # field 3, length-delimited
TAG_RAW_INPUT: Final = 0x3A  # field 7, length-delimited
MAX_LENGTH_SHIFT: Final = 28
"""Lengths have five bytes at most; the parser says what is wrong with a longer one, which must not cost us more."""
COPY_BELOW_BYTES: Final = 1024
"""Smaller tensors are copied out of the message: a bytes slice is cheaper than a view."""

CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype → the field of InferTensorContents that carries it. FP16 and BF16 travel raw only."""

_CONTENTS_DTYPES: Final = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
    "fp32_contents": np.float32,
    "fp64_contents": np.float64,
}

Decoded = tuple[InferHeader, str, list[Buffer]]
Known = tuple[InferHeader, int, bool, tuple[int, ...]]
"""A header, how many tensors come with it, whether one of them is BYTES, and which inputs lie in shared memory."""


class GrpcInferDecoder:
    """Decodes inference requests, and remembers headers within bounds."""

    def __init__(self, max_entries: int = 1024, max_header_bytes: int = 4096) -> None:
        self._parse: Final[Callable[[bytes], Any]] = message_class(
            "inference.ModelInferRequest"
        ).FromString
        self._max_entries = max_entries
        self._max_header_bytes = max_header_bytes
        self._headers: dict[bytes, Known] = {}

    def decode(self, message: bytes) -> Decoded:
        """The request's header (one object for all that repeat it), id and tensor bytes in the header's order.

        Inputs in shared memory have empty bytes. Raises InvalidRequest.
        """
        key, request_id, raw = _split(message)
        known = self._headers.get(key)
        if known is None:
            parsed = _parsed(self._parse, key)
            header = _header(parsed)
            if any(tensor.HasField("contents") for tensor in parsed.inputs):
                return header, request_id, _contents(parsed, header, raw)
            known = self._remember(key, header)
        header, count, has_bytes, in_regions = known
        if len(raw) != count:
            raise InvalidRequest(
                f"expected {count} raw input contents, one for each input, got {len(raw)}"
            )
        for position in in_regions:
            raw.insert(position, b"")
        if has_bytes:
            _check_bytes(header, raw)
        return header, request_id, raw

    def _remember(self, key: bytes, header: InferHeader) -> Known:
        sent = [tensor for tensor in header.inputs if tensor.region is None]
        has_bytes = any(tensor.datatype == "BYTES" for tensor in sent)
        in_regions = tuple([i for i, t in enumerate(header.inputs) if t.region is not None])
        known = header, len(sent), has_bytes, in_regions
        if len(key) <= self._max_header_bytes:
            if len(self._headers) >= self._max_entries:
                self._headers.clear()
            self._headers[key] = known
        return known


def _check_bytes(header: InferHeader, raw: list[Buffer]) -> None:
    for tensor, data in zip(header.inputs, raw, strict=True):
        if tensor.datatype == "BYTES" and tensor.region is None:
            count_bytes_elements(data, element_count(tensor.shape), tensor.name)


def _split(message: bytes) -> tuple[bytes, str, list[Buffer]]:
    """The message without id and raw tensors, the id, and the raw tensors.

    Wire format: https://protobuf.dev/programming-guides/encoding. All top-level fields of ModelInferRequest are
    length-delimited with one-byte tags; any other field is left in the header, for the parser to skip.
    """
    raw: list[Buffer] = []
    request_id = b""
    kept: list[bytes] = []
    position = kept_from = 0
    end = len(message)
    try:
        while position < end:
            start = position
            tag = message[position]
            length = message[position + 1]
            position += 2
            if tag & 7 != 2 or tag > 0x7F:
                # not a field of this message as we know it: leave the rest to the parser
                return message, *_whole(message)
            if length > 0x7F:
                length &= 0x7F
                shift = 7
                while True:
                    byte = message[position]
                    position += 1
                    length |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                    shift += 7
                    if shift > MAX_LENGTH_SHIFT:
                        return message, *_whole(message)
            first = position
            position += length
            if position > end:
                raise InvalidRequest(
                    f"the message is truncated: a field of {length} bytes at {start} runs over its end at {end}"
                )
            if tag == TAG_RAW_INPUT:
                if length < COPY_BELOW_BYTES:
                    raw.append(message[first:position])
                else:
                    raw.append(memoryview(message)[first:position])
            elif tag == TAG_ID:
                request_id = message[first:position]
            else:
                continue
            if kept_from < start:
                kept.append(message[kept_from:start])
            kept_from = position
    except IndexError:
        raise InvalidRequest(
            f"the message is truncated: it ends in a field's head at {end}"
        ) from None
    if kept_from < end:
        kept.append(message[kept_from:end])
    try:
        return kept[0] if len(kept) == 1 else b"".join(kept), request_id.decode(), raw
    except UnicodeDecodeError:
        raise InvalidRequest("the request's id is not valid UTF-8") from None


def _whole(message: bytes) -> tuple[str, list[Buffer]]:
    """Id and tensors of a message in an unusual encoding, by the full parser."""
    parsed = _parsed(message_class("inference.ModelInferRequest").FromString, message)
    return parsed.id, list(parsed.raw_input_contents)


def _parsed(parse: Callable[[bytes], Message], message: bytes) -> Any:
    try:
        return parse(message)
    except (DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the message is not a ModelInferRequest: {error}") from error


def _header(parsed: Any) -> InferHeader:
    inputs = []
    for tensor in parsed.inputs:
        if tensor.datatype not in ITEM_BYTES:
            raise InvalidRequest(
                f"invalid datatype '{tensor.datatype}' of input '{tensor.name}', expected one of "
                f"{', '.join(ITEM_BYTES)}"
            )
        shape = tuple(tensor.shape)
        element_count(shape)
        spec = TensorSpec(tensor.name, tensor.datatype, shape, _region(tensor))
        if spec.region is not None:
            check_region_size(parsed.model_name, spec)
        inputs.append(spec)
    if len({tensor.name for tensor in inputs}) != len(inputs):
        names = [tensor.name for tensor in inputs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(
            f"duplicate input '{twice}' in request for model '{parsed.model_name}'"
        )
    return InferHeader(
        parsed.model_name,
        parsed.model_version,
        tuple(inputs),
        tuple(_requested(output) for output in parsed.outputs),
        check_parameters({name: _parameter(value) for name, value in parsed.parameters.items()}),
    )


def _requested(output: Any) -> RequestedOutput:
    region = _region(output)
    if "classification" not in output.parameters:
        return RequestedOutput(output.name, region=region)
    if region is not None:
        raise InvalidRequest(
            f"Output '{output.name}' can't set both 'shared_memory_region' and 'classification'"
        )
    top = output.parameters["classification"]
    if top.WhichOneof("parameter_choice") != "int64_param" or top.int64_param < 1:
        raise InvalidRequest(
            f"parameter 'classification' of output '{output.name}': expected an int64 of 1 or more"
        )
    return RequestedOutput(output.name, top.int64_param)


def _region(tensor: Any) -> RegionRef | None:
    if not tensor.parameters:
        return None
    return region_ref(
        tensor.name, {name: _parameter(value) for name, value in tensor.parameters.items()}
    )


def _parameter(value: Any) -> Parameter:
    choice = value.WhichOneof("parameter_choice")
    return getattr(value, choice) if choice else ""


def _contents(parsed: Any, header: InferHeader, raw: list[Buffer]) -> list[Buffer]:
    """The tensors of a request that carries them as typed `contents`."""
    if raw:
        raise InvalidRequest(
            "contents field must not be specified when using raw_input_contents for "
            f"'{parsed.inputs[0].name}' for model '{parsed.model_name}'"
        )
    return [
        _typed(tensor, spec) if spec.region is None else _in_region(parsed.model_name, tensor)
        for tensor, spec in zip(parsed.inputs, header.inputs, strict=True)
    ]


def _in_region(model_name: str, tensor: Any) -> bytes:
    if tensor.HasField("contents"):
        raise InvalidRequest(
            "unexpected 'content' provided when using shared memory for input tensor"
            f" '{tensor.name}' for model '{model_name}'"
        )
    return b""


def _typed(tensor: Any, spec: TensorSpec) -> bytes:
    name = CONTENTS.get(spec.datatype)
    if name is None:
        raise InvalidRequest(
            f"input '{spec.name}': {spec.datatype} must be sent as raw_input_contents"
        )
    values = getattr(tensor.contents, name)
    expected = element_count(spec.shape)
    if len(values) != expected:
        raise InvalidRequest(
            f"input '{spec.name}': expected {expected} elements in {name} for shape "
            f"{list(spec.shape)}, got {len(values)}"
        )
    if spec.datatype == "BYTES":
        return serialize_bytes(list(values))
    wide: Array = np.array(values, dtype=_CONTENTS_DTYPES[name])
    narrow = wide.astype(NUMPY_DTYPES[spec.datatype])
    if not np.array_equal(wide, narrow, equal_nan=wide.dtype.kind == "f"):
        raise InvalidRequest(
            f"input '{spec.name}': a value in {name} is out of {spec.datatype}'s range"
        )
    return narrow.tobytes()
