"""Hypothesis strategies for tensors of all datatypes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from penstock.gateway.json_tensors import BINARY_ONLY
from penstock.tensors import element_count, serialize_bytes
from penstock.types import NUMPY_DTYPES, Array

DATATYPES = sorted(NUMPY_DTYPES)

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn, datatypes: list[str] = DATATYPES) -> tuple[str, Array]:
    """A datatype and an array of it, of any bit pattern (BOOL: of true and false; BYTES: of any bytes)."""
    datatype, shape = draw(st.sampled_from(datatypes)), draw(shapes)
    count = element_count(shape)
    if datatype == "BYTES":
        strings = np.empty(count, np.object_)
        strings[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        return datatype, strings.reshape(shape)
    dtype = NUMPY_DTYPES[datatype]
    size = count * dtype.itemsize
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    return datatype, (data & 1 if datatype == "BOOL" else data).view(dtype).reshape(shape)


def to_wire(datatype: str, array: Array) -> bytes:
    """The array's raw bytes."""
    return serialize_bytes(array) if datatype == "BYTES" else array.tobytes()


def _fits_json(typed: tuple[str, Array]) -> bool:
    datatype, array = typed
    try:
        return datatype != "BYTES" or all(item.decode() is not None for item in array.flat)
    except UnicodeDecodeError:
        return False


json_arrays = arrays([name for name in DATATYPES if name not in BINARY_ONLY]).filter(_fits_json)
"""What JSON can carry: no FP16, no BF16, BYTES in UTF-8."""
