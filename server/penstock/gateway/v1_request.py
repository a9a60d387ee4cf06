"""The body of a KServe V1 prediction → tensors of the protocol's own inference.

It is TensorFlow Serving's form: `{"instances": […]}` has a value, or an object of named values, for each row;
`{"inputs": …}` has whole tensors. Shapes are what the nesting says, datatypes what the model's configuration says.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from penstock.errors import InvalidRequest
from penstock.gateway.json_depth import check_json_depth
from penstock.gateway.json_tensors import BINARY_ONLY, parse_elements
from penstock.model_config import ANY_SIZE, ModelConfig, Tensor, wire_shape
from penstock.tensors import serialize_bytes
from penstock.types import NUMPY_DTYPES, Array, Buffer, TensorSpec

B64: Final = "b64"


class V1Request(msgspec.Struct, frozen=True):
    """A prediction taken apart."""

    specs: tuple[TensorSpec, ...]
    buffers: list[Buffer]
    is_row: bool
    """The one instance is all that the model takes at once: the answer is one prediction."""


def decode_predict(body: bytes, config: ModelConfig) -> V1Request:
    """Take a prediction's body apart, for the model of that configuration.

    Unknown keys are ignored. Raises InvalidRequest, naming key or input.
    """
    given = _parse(body)
    instances, inputs = given.get("instances"), given.get("inputs")
    if (instances is None) == (inputs is None):
        raise InvalidRequest(
            'expected either "instances" (a value for each row) or "inputs" (whole tensors)'
            f" in the request, got {'neither' if inputs is None else 'both'}"
        )
    if instances is None:
        tensors = {
            name: _tensor(_named(config, name), value, config, by_row=False)
            for name, value in _columns(inputs, config).items()
        }
        return _request(tensors, is_row=False)
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest('expected "instances" to be a list with at least one value')
    columns = _by_name(instances, config)
    tensors = {
        name: _tensor(_named(config, name), values, config, by_row=True)
        for name, values in columns.items()
    }
    return (
        _without_rows(tensors, config) if len(instances) == 1 else _request(tensors, is_row=False)
    )


def _parse(body: bytes) -> dict[str, Any]:
    check_json_depth(body)
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"NaN" in body or b"Infinity" in body:
            return _parse_with_nan(body)
        raise InvalidRequest(f"Unrecognized request format: {error}") from error


def _parse_with_nan(body: bytes) -> dict[str, Any]:
    """By a slower parser, which takes what Python's json writes."""
    try:
        value = json.loads(body.decode())
        # this parser lets lone surrogates pass, which nothing downstream can encode
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"Unrecognized request format: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("Unrecognized request format: expected an object")
    return value


class _Parsed(msgspec.Struct, frozen=True):
    tensor: Tensor
    shape: tuple[int, ...]
    elements: list[Any]


def _request(tensors: Mapping[str, _Parsed], *, is_row: bool) -> V1Request:
    specs = tuple(TensorSpec(name, t.tensor.datatype, t.shape) for name, t in tensors.items())
    elements = [parsed.elements for parsed in tensors.values()]
    buffers = [_pack(spec, each) for spec, each in zip(specs, elements, strict=True)]
    return V1Request(specs, buffers, is_row)


def _without_rows(tensors: Mapping[str, _Parsed], config: ModelConfig) -> V1Request:
    """One instance: a model without a batch dimension may be meant to take it as it is."""
    is_row = config.max_batch_size == 0 and all(
        len(parsed.shape) == len(parsed.tensor.dims) + 1 for parsed in tensors.values()
    )
    if is_row:
        tensors = {
            name: msgspec.structs.replace(parsed, shape=parsed.shape[1:])
            for name, parsed in tensors.items()
        }
    return _request(tensors, is_row=is_row)


# ── which input a value is for ──────────────────────────────────────────────────────────────────────────────────────


def _columns(inputs: Any, config: ModelConfig) -> Mapping[str, Any]:
    return inputs if _has_names(inputs) else {_only_input(config): inputs}


def _by_name(instances: Sequence[Any], config: ModelConfig) -> Mapping[str, list[Any]]:
    named = [_has_names(instance) for instance in instances]
    if not any(named):
        return {_only_input(config): list(instances)}
    names = instances[0].keys() if named[0] else ()
    for index, instance in enumerate(instances):
        if not named[index] or instance.keys() != names:
            raise InvalidRequest(
                f'"instances" must all have the same inputs, and instance {index} differs from the first'
            )
    return {name: [instance[name] for instance in instances] for name in names}


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) and not _is_b64(value)


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {B64}


def _only_input(config: ModelConfig) -> str:
    required = [tensor.name for tensor in config.input if not tensor.optional]
    names = required or [tensor.name for tensor in config.input]
    if len(names) != 1:
        raise InvalidRequest(
            f"model '{config.name}' has the inputs {', '.join(names)}: expected objects with their names"
        )
    return names[0]


def _named(config: ModelConfig, name: str) -> Tensor:
    for tensor in config.input:
        if tensor.name == name:
            return tensor
    known = ", ".join(tensor.name for tensor in config.input)
    raise InvalidRequest(
        f"unexpected inference input '{name[:100]}' for model '{config.name}', expected {known}"
    )


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tensor(tensor: Tensor, value: Any, config: ModelConfig, *, by_row: bool) -> _Parsed:
    shape, elements = _flatten(tensor.name, value)
    wanted = wire_shape(tensor, config.max_batch_size)
    # a value where the model wants a vector of one: `"instances": ["a text"]`
    one = (1, ANY_SIZE) if by_row else (1,)
    if len(shape) == 1 and len(wanted) == 2 and wanted[1] in one:
        shape = (*shape, 1)
    return _Parsed(tensor, shape, elements)


def _flatten(name: str, value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and innermost elements of nested lists. Raises InvalidRequest where lists of one level differ."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(each, list) or len(each) != size for each in level):
            raise InvalidRequest(
                f"input '{name}': lists on one level must have the same length, those on level"
                f" {len(shape)} differ"
            )
        shape.append(size)
        level = list(chain.from_iterable(level))
    if any(isinstance(each, list) for each in level):
        raise InvalidRequest(f"input '{name}': values and lists are mixed on one level")
    return tuple(shape), level


def _pack(spec: TensorSpec, elements: list[Any]) -> Buffer:
    if spec.datatype == "BYTES":
        return serialize_bytes([_bytes(spec.name, element) for element in elements])
    if spec.datatype in BINARY_ONLY:
        # this protocol has nothing but JSON
        wide = parse_elements(TensorSpec(spec.name, "FP32", spec.shape), elements)
        return _narrowed(spec, np.frombuffer(wide, np.float32))
    return parse_elements(spec, elements)


def _narrowed(spec: TensorSpec, wide: Array) -> bytes:
    """The elements as the smaller datatype. Raises InvalidRequest where one is out of its range."""
    with np.errstate(over="ignore"):
        array = wide.astype(NUMPY_DTYPES[spec.datatype])
    beyond = wide[np.isinf(array.astype(np.float32)) & ~np.isinf(wide)]
    if beyond.size:
        raise InvalidRequest(
            f"input '{spec.name}': {beyond[0]} is out of the range of {spec.datatype}"
        )
    return array.tobytes()


def _bytes(name: str, element: Any) -> bytes:
    try:
        if isinstance(element, str):
            return element.encode()
        if _is_b64(element) and isinstance(element[B64], str):
            return base64.b64decode(element[B64], validate=True)
    except ValueError as error:
        # not base64, not ASCII, or no text
        raise InvalidRequest(f"input '{name}': {error}") from error
    raise InvalidRequest(
        f"input '{name}': expected texts, or {{\"b64\": …}} for bytes, got {str(element)[:40]}"
    )
