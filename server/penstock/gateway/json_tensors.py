"""Tensor elements as JSON: the `data` field of requests and responses.

FP16 and BF16 travel as binary only, as in Triton. NaN and the infinities, which JSON lacks, are written and read as
the tokens `NaN`, `Infinity` and `-Infinity`: what Triton does, and what tritonclient and Python's json understand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from penstock.errors import InvalidRequest
from penstock.tensors import as_array, element_count, serialize_bytes
from penstock.types import NUMPY_DTYPES, Array, Buffer, OutputTensor, TensorSpec

BINARY_ONLY: Final = frozenset({"FP16", "BF16"})
"""Datatypes that JSON can't carry."""


def _integers(dtype: np.dtype[Any]) -> Any:
    """The type of a list of integers that fit the dtype."""
    limits = np.iinfo(dtype)
    # msgspec takes limits within int64 only; for UINT64 NumPy raises on what is above.
    high = min(int(limits.max), 2**63 - 1) if limits.max < 2**63 else None
    return list[Annotated[int, msgspec.Meta(ge=int(limits.min), le=high)]]


_LISTS: Final[Mapping[str, Any]] = {
    "BOOL": list[bool],
    "FP32": list[float],
    "FP64": list[float],
    "BYTES": list[str],
    **{name: _integers(dtype) for name, dtype in NUMPY_DTYPES.items() if dtype.kind in "iu"},
}
"""Datatype → what its flat elements must be in JSON."""


def parse_elements(spec: TensorSpec, data: list[Any]) -> Buffer:
    """Raw bytes of an input from its JSON `data`, flat or nested in any way: only the number of elements counts.

    Raises InvalidRequest, naming the input, where elements are of the wrong type, out of range, too few or too many.
    """
    if spec.datatype in BINARY_ONLY:
        raise InvalidRequest(
            f"receiving {spec.datatype} data via JSON is not supported."
            f" Please use the binary data format for input {spec.name}"
        )
    flat = _flatten(spec.name, data)
    if len(flat) != element_count(spec.shape):
        raise InvalidRequest(
            f"input '{spec.name}': shape {list(spec.shape)} does not match"
            f" the {len(flat)} elements of its 'data' field"
        )
    try:
        elements = msgspec.convert(flat, _LISTS[spec.datatype])
        return serialize_bytes(elements) if spec.datatype == "BYTES" else _pack(spec, elements)
    except (msgspec.ValidationError, ArithmeticError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            f"input '{spec.name}': can't take 'data' as {spec.datatype}: {error}"
        ) from error


def _flatten(name: str, data: list[Any]) -> list[Any]:
    """The innermost elements, in order."""
    while data and isinstance(data[0], list):
        if not {list}.issuperset(map(type, data)):
            raise InvalidRequest(f"input '{name}': 'data' mixes elements and lists on one level")
        data = list(chain.from_iterable(data))
    return data


def _pack(spec: TensorSpec, elements: list[Any]) -> Buffer:
    """The bytes of checked elements. Raises ArithmeticError where one is out of the datatype's range."""
    with np.errstate(over="raise"):
        array = np.array(elements, NUMPY_DTYPES[spec.datatype])
    return array.data.cast("B") if elements else b""


def format_elements(output: OutputTensor) -> list[Any] | msgspec.Raw:
    """An output's elements as a flat JSON list, ready for msgspec's encoder.

    Raises InvalidRequest where JSON can't hold them: FP16, BF16, and BYTES that are not UTF-8.
    """
    if output.datatype in BINARY_ONLY:
        raise InvalidRequest(
            f"sending {output.datatype} data via JSON is not supported."
            f" Please use the binary data format for output {output.name}"
        )
    array = as_array(output.datatype, output.shape, output.data).ravel()
    if output.datatype == "BYTES":
        return _format_strings(output.name, array)
    elements: list[Any] = array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return msgspec.Raw(json.dumps(elements, separators=(",", ":")).encode())
    return elements


def _format_strings(name: str, array: Array) -> list[str]:
    try:
        return list(map(bytes.decode, array.tolist()))
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"output '{name}' has bytes that are not UTF-8, which JSON can't hold."
            " Please ask for it with binary_data"
        ) from error
