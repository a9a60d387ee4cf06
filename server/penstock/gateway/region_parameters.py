"""A tensor's `shared_memory_*` parameters, which both wires have, → RegionRef."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.errors import InvalidRequest
from penstock.tensors import expected_nbytes
from penstock.types import RegionRef, TensorSpec


def region_ref(tensor: str, parameters: Mapping[str, Any]) -> RegionRef | None:
    """Where a tensor lies, or shall lie, by its parameters; None when they name no region.

    Raises InvalidRequest in Triton's words for gRPC.
    """
    name = parameters.get("shared_memory_region")
    byte_size = parameters.get("shared_memory_byte_size")
    offset = parameters.get("shared_memory_offset")
    if name is None:
        for key, value in (("byte_size", byte_size), ("offset", offset)):
            if value is not None:
                raise InvalidRequest(
                    f"'shared_memory_{key}' can not be specified without 'shared_memory_region'"
                    f" parameter for tensor '{tensor}'"
                )
        return None
    if not isinstance(name, str):
        raise _wrong_type("region", tensor, "string_param")
    if byte_size is None:
        raise InvalidRequest(
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region'"
            f" parameter for tensor '{tensor}'"
        )
    return RegionRef(
        name,
        0 if offset is None else _natural("offset", tensor, offset),
        _natural("byte_size", tensor, byte_size),
    )


def check_region_size(model: str, spec: TensorSpec) -> None:
    """Check that an input's region has as many bytes as its shape. Raises InvalidRequest."""
    assert spec.region is not None
    expected = expected_nbytes(spec.datatype, spec.shape)
    if expected is not None and expected != spec.region.byte_size:
        raise InvalidRequest(
            f"input byte size mismatch for input '{spec.name}' for model '{model}'."
            f" Expected {expected}, got {spec.region.byte_size}"
        )


def _natural(key: str, tensor: str, value: object) -> int:
    if type(value) is not int:
        raise _wrong_type(key, tensor, "int64_param")
    if value < 0:
        raise InvalidRequest(
            f"'shared_memory_{key}' parameter for tensor '{tensor}' must not be negative, got {value}"
        )
    return value


def _wrong_type(key: str, tensor: str, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"invalid value type for 'shared_memory_{key}' parameter for tensor '{tensor}', expected"
        f" {expected}."
    )
