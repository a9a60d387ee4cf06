"""The JSON of an HTTP inference request: parsed, checked, and laid out against the binary tensors that follow it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from penstock.errors import InvalidRequest
from penstock.gateway.json_depth import check_json_depth
from penstock.gateway.json_tensors import parse_elements
from penstock.gateway.region_parameters import check_region_size, region_ref
from penstock.gateway.request_parameters import check_parameters
from penstock.tensors import element_count, expected_nbytes
from penstock.types import Buffer, InferHeader, RegionRef, RequestedOutput, TensorSpec


class _InputParameters(msgspec.Struct, frozen=True):
    binary_data_size: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    shared_memory_region: Any = None
    shared_memory_offset: Any = None
    shared_memory_byte_size: Any = None


class _Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _InputParameters | None = None
    data: list[Any] | UnsetType = UNSET


class _OutputParameters(msgspec.Struct, frozen=True):
    classification: Annotated[int, Meta(ge=0)] = 0
    binary_data: bool | None = None
    shared_memory_region: Any = None
    shared_memory_offset: Any = None
    shared_memory_byte_size: Any = None


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: _OutputParameters | None = None


class _Body(msgspec.Struct, frozen=True):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


_decode: Final = msgspec.json.Decoder(_Body).decode
_NO_INPUT_PARAMETERS: Final = _InputParameters()
_NO_OUTPUT_PARAMETERS: Final = _OutputParameters()


class ParsedHeader(msgspec.Struct, frozen=True):
    """A request's JSON, checked as far as can be without the model and the binary tensors."""

    infer_header: InferHeader
    id: str
    binary_data_output: bool
    parts: list[slice | Buffer] = []
    """For each input: where its bytes lie after the JSON, or the bytes themselves where they came as JSON; nowhere for
    those in shared memory."""
    strings: list[tuple[int, str, int]] = []
    """Binary BYTES inputs, whose lengths are still to be checked: position, name, number of elements."""
    binary_bytes: int = 0
    """How many bytes must follow the JSON."""
    repeatable: bool = False
    """Holds nothing that differs from request to request: neither id nor tensor elements."""

    def explain_size(self, binary_bytes: int) -> str:
        """What is wrong when that many bytes follow the JSON instead, in Triton's words."""
        model = self.infer_header.model_name
        if binary_bytes > self.binary_bytes:
            return (
                f"unexpected additional input data for model '{model}': binary_data_size of all"
                f" inputs is {self.binary_bytes}, but {binary_bytes} bytes follow the JSON"
            )
        for spec, part in zip(self.infer_header.inputs, self.parts, strict=True):
            if isinstance(part, slice) and part.stop > binary_bytes:
                missing = part.stop - max(binary_bytes, part.start)
                return (
                    f"unexpected size for input '{spec.name}', expecting {missing} additional bytes"
                    f" for model '{model}'"
                )
        raise AssertionError(f"{binary_bytes} bytes are what the header asks for")


def parse_header(model_name: str, model_version: str, text: bytes) -> ParsedHeader:
    """Parse and check a request's JSON.

    Unknown keys are ignored, as in Triton; `null` stands for an optional key that is not there.
    Raises InvalidRequest, naming the path or tensor.
    """
    body = _parse(text)
    parameters = check_parameters(body.parameters or {})
    binary_data_output = bool(parameters.pop("binary_data_output", False))
    specs = tuple([_spec(tensor) for tensor in body.inputs])
    _check_unique("input", [spec.name for spec in specs])
    outputs = tuple([_requested(output) for output in body.outputs or ()])
    _check_unique("output", [output.name for output in outputs])
    header = InferHeader(model_name, model_version, specs, outputs, parameters)
    return _lay_out(header, body, binary_data_output)


def _parse(text: bytes) -> _Body:
    check_json_depth(text)
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request is malformed: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"NaN" in text or b"Infinity" in text:
            return _parse_with_nan(text)
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from error


def _parse_with_nan(text: bytes) -> _Body:
    """As `_parse`, by a slower parser that takes NaN and Infinity, which tritonclient writes and msgspec refuses."""
    try:
        body = msgspec.convert(json.loads(text.decode()), _Body)
        # This parser lets lone surrogates pass, which nothing downstream can encode.
        msgspec.json.encode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request is malformed: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from error
    return body


def _spec(tensor: _Input) -> TensorSpec:
    parameters = tensor.parameters or _NO_INPUT_PARAMETERS
    region = _region(tensor.name, parameters)
    fields = [
        field
        for field, value in (
            ("'data'", tensor.data),
            ("'binary_data_size'", parameters.binary_data_size),
            ("'shared_memory_region'", region or UNSET),
        )
        if value is not UNSET
    ]
    if len(fields) != 1:
        but = f"set {' '.join(fields)}" if fields else "no field is set"
        raise InvalidRequest(
            f"input '{tensor.name}' must set only one of the following fields: 'data',"
            f" 'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But {but}"
        )
    return TensorSpec(tensor.name, tensor.datatype, tensor.shape, region)


def _requested(output: _Output) -> RequestedOutput:
    parameters = output.parameters or _NO_OUTPUT_PARAMETERS
    region = _region(output.name, parameters)
    for name, value in (
        ("binary_data", parameters.binary_data),
        ("classification", parameters.classification),
    ):
        if region is not None and value:
            raise InvalidRequest(
                f"Output '{output.name}' can't set both 'shared_memory_region' and '{name}'"
            )
    return RequestedOutput(output.name, parameters.classification, parameters.binary_data, region)


def _region(tensor: str, parameters: _InputParameters | _OutputParameters) -> RegionRef | None:
    return region_ref(tensor, msgspec.structs.asdict(parameters))


def _check_unique(what: str, names: list[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequest(f"{what} '{name}' already exists in request")
        seen.add(name)


def _lay_out(header: InferHeader, body: _Body, binary_data_output: bool) -> ParsedHeader:
    """Give each input its place after the JSON, or its bytes from the JSON."""
    parts: list[slice | Buffer] = []
    strings: list[tuple[int, str, int]] = []
    end = 0
    for index, (spec, tensor) in enumerate(zip(header.inputs, body.inputs, strict=True)):
        expected = _expected_nbytes(spec)
        if not isinstance(tensor.data, UnsetType):
            parts.append(parse_elements(spec, tensor.data))
            continue
        if spec.region is not None:
            check_region_size(header.model_name, spec)
            parts.append(slice(0, 0))
            continue
        start, end = end, end + _binary_size(header.model_name, tensor, expected)
        parts.append(slice(start, end))
        if expected is None:
            strings.append((index, spec.name, element_count(spec.shape)))
    return ParsedHeader(
        header,
        body.id or "",
        binary_data_output,
        parts,
        strings,
        end,
        repeatable=body.id is None and all(isinstance(part, slice) for part in parts),
    )


def _expected_nbytes(spec: TensorSpec) -> int | None:
    try:
        return expected_nbytes(spec.datatype, spec.shape)
    except InvalidRequest as error:
        raise InvalidRequest(f"input '{spec.name}': {error}") from error


def _binary_size(model_name: str, tensor: _Input, expected: int | None) -> int:
    """The input's `binary_data_size`, checked against its shape."""
    size = (tensor.parameters or _NO_INPUT_PARAMETERS).binary_data_size
    assert not isinstance(size, UnsetType)
    if expected is not None and size != expected:
        raise InvalidRequest(
            f"input byte size mismatch for input '{tensor.name}' for model '{model_name}'."
            f" Expected {expected}, got {size}"
        )
    return size
