"""InferResponse → the body of an HTTP answer: JSON, then the outputs that the client wants as binary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from penstock.errors import InvalidRequest
from penstock.gateway.json_tensors import format_elements
from penstock.types import Buffer, InferResponse, OutputTensor, Parameter, RequestedOutput


class _BinaryParameters(msgspec.Struct, frozen=True):
    binary_data_size: int


class _RegionParameters(msgspec.Struct, frozen=True):
    shared_memory_region: str
    shared_memory_offset: int
    shared_memory_byte_size: int


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _BinaryParameters | _RegionParameters | UnsetType = UNSET
    data: Any = UNSET


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    id: str | UnsetType = UNSET
    model_name: str
    model_version: str
    parameters: Mapping[str, Parameter] | UnsetType = UNSET
    outputs: list[_Output]


_encode: Final = msgspec.json.Encoder().encode


def encode_http_infer(
    response: InferResponse, requested: tuple[RequestedOutput, ...], binary_default: bool
) -> tuple[bytes, int | None]:
    """The body, and the length of the JSON at its start where binary tensors follow (None: it is all JSON).

    `requested` selects outputs, empty: all; `binary_default` holds where an output's own `binary` is None. Tensor bytes
    are copied once, into the body. Raises InvalidRequest where an output asked for as JSON can't be JSON.
    """
    wanted = {output.name: output.binary for output in requested}
    outputs: list[_Output] = []
    parts: list[Buffer] = [b""]
    for output in response.outputs:
        if wanted and output.name not in wanted:
            continue
        asked = wanted.get(output.name)
        binary = binary_default if asked is None else asked
        outputs.append(_describe(output, binary))
        if binary and output.region is None:
            parts.append(output.data)
    parts[0] = header = _encode(_body(response, outputs))
    return (header, None) if len(parts) == 1 else (b"".join(parts), len(header))


MAX_JSON_BYTES: Final = 16 << 20
"""Larger outputs must be binary: as JSON they would keep the event loop from everybody for seconds."""


def _describe(output: OutputTensor, binary: bool) -> _Output:
    if output.region is not None:
        place = _RegionParameters(output.region.name, output.region.offset, output.region.byte_size)
        return _Output(output.name, output.datatype, output.shape, parameters=place)
    if binary:
        size = _BinaryParameters(len(output.data))
        return _Output(output.name, output.datatype, output.shape, parameters=size)
    if len(output.data) > MAX_JSON_BYTES:
        raise InvalidRequest(
            f"output '{output.name}' has {len(output.data)} bytes, JSON may carry {MAX_JSON_BYTES}: ask for it with "
            "binary_data"
        )
    return _Output(output.name, output.datatype, output.shape, data=format_elements(output))


def _body(response: InferResponse, outputs: list[_Output]) -> _Body:
    return _Body(
        id=response.id or UNSET,
        model_name=response.model_name,
        model_version=response.model_version,
        parameters=response.parameters or UNSET,
        outputs=outputs,
    )
