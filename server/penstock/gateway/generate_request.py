"""The body of a generate request → InferHeader, id and tensor bytes: keys are inputs by name, or else parameters.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from penstock.errors import InvalidRequest
from penstock.gateway.json_depth import check_json_depth
from penstock.gateway.json_tensors import parse_elements
from penstock.gateway.request_parameters import check_parameters
from penstock.model_config import ModelConfig, Tensor, wire_shape
from penstock.types import Buffer, InferHeader, TensorSpec

NESTED: Final = "parameters"
"""The key whose object's keys mean the same as those beside it."""

_ELEMENTS: Final[Mapping[str, tuple[type, str]]] = {
    "BYTES": (str, "attempt to access JSON non-string as string"),
    "BOOL": (bool, "attempt to access JSON non-boolean as boolean"),
}
"""Datatype → what its elements must be, and Triton's words for others."""


class _Object(dict[str, Any]):
    """A JSON object that knows which of its keys came twice."""

    repeated: str | None = None


def decode_generate(
    config: ModelConfig, model_version: str, body: bytes
) -> tuple[InferHeader, str, list[Buffer]]:
    """Header, id and tensor bytes of a request to the model. `model_version` is the one asked for.

    Raises InvalidRequest, naming the key.
    """
    parsed = _parse(body)
    inputs = {tensor.name: tensor for tensor in config.input}
    given: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    request_id = _take_id(parsed, inputs)
    nested = parsed.pop(NESTED, None) if NESTED in parsed else {}
    _sort(parsed, inputs, given, parameters)
    checked = check_parameters(parameters)
    if NESTED in inputs and nested:
        raise InvalidRequest(
            f"Keyword '{NESTED}' for nested schema also given as input tensor name"
        )
    checked |= _nested(nested, inputs, given)
    specs: list[TensorSpec] = []
    buffers: list[Buffer] = []
    for name, value in given.items():
        spec, data = _tensor(inputs[name], value, config.max_batch_size)
        specs.append(spec)
        buffers.append(data)
    header = InferHeader(config.name, model_version, tuple(specs), (), checked)
    return header, request_id, buffers


def _parse(body: bytes) -> _Object:
    check_json_depth(body)
    try:
        parsed = json.loads(body.decode(), object_pairs_hook=_object)
        # this parser lets lone surrogates pass, which nothing downstream can encode
        msgspec.json.encode(parsed)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from error
    if not isinstance(parsed, _Object):
        raise InvalidRequest("failed to parse the request JSON buffer: it is not an object")
    return parsed


def _object(pairs: Sequence[tuple[str, Any]]) -> _Object:
    parsed = _Object(pairs)
    if len(parsed) != len(pairs):
        parsed.repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return parsed


def _take_id(parsed: _Object, inputs: Mapping[str, Tensor]) -> str:
    if "id" in inputs or "id" not in parsed:
        return ""
    request_id = parsed.pop("id")
    if not isinstance(request_id, str):
        raise InvalidRequest("Unable to parse 'id': attempt to access JSON non-string as string")
    return request_id


def _nested(nested: Any, inputs: Mapping[str, Tensor], given: dict[str, Any]) -> dict[str, Any]:
    """The parameters in the key for them; inputs there join those `given`."""
    if not isinstance(nested, dict):
        raise InvalidRequest(f"Expected JSON object for keyword: '{NESTED}'")
    parameters: dict[str, Any] = {}
    try:
        _sort(nested, inputs, given, parameters)
        return check_parameters(parameters)
    except InvalidRequest as error:
        raise InvalidRequest(f"Converting keyword: '{NESTED}': {error}") from error


def _sort(
    parsed: dict[str, Any],
    inputs: Mapping[str, Tensor],
    given: dict[str, Any],
    parameters: dict[str, Any],
) -> None:
    """Each key to where it belongs."""
    repeated = getattr(parsed, "repeated", None)
    if repeated is not None:
        what = "input" if repeated in inputs else "parameter"
        raise InvalidRequest(f"{what} '{repeated}' already exists in request")
    for key, value in parsed.items():
        if key not in inputs:
            parameters[key] = value
        elif key in given:
            raise InvalidRequest(f"input '{key}' already exists in request")
        else:
            given[key] = value


def _tensor(tensor: Tensor, value: Any, max_batch_size: int) -> tuple[TensorSpec, Buffer]:
    """An input that is a scalar or a list."""
    elements = _flat(value) if isinstance(value, list) else [value]
    expected, problem = _ELEMENTS.get(tensor.datatype, (object, ""))
    if not all(isinstance(element, expected) for element in elements):
        raise InvalidRequest(f"input '{tensor.name}': {problem}")
    dims = wire_shape(tensor, max_batch_size)
    spec = TensorSpec(tensor.name, tensor.datatype, _shape(tensor.name, dims, len(elements)))
    return spec, parse_elements(spec, elements)


def _flat(value: list[Any]) -> list[Any]:
    while value and all(isinstance(each, list) for each in value):
        value = list(chain.from_iterable(value))
    return value


def _shape(name: str, dims: Sequence[int], count: int) -> tuple[int, ...]:
    """The shape of so many elements: what the fixed dimensions leave of them has the last free one, others are 1."""
    shape = list(dims)
    for dim in shape:
        if dim > 0 and count % dim == 0:
            count //= dim
        elif dim != -1:
            raise _unfit(name)
    for index in reversed(range(len(shape))):
        if shape[index] == -1:
            shape[index], count = count, 1
    if count != 1:
        raise _unfit(name)
    return tuple(shape)


def _unfit(name: str) -> InvalidRequest:
    return InvalidRequest(f"The schema can not convert input '{name}' to tensor with proper shape")
