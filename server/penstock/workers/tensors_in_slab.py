"""Arrays in slabs, as the worker sees them."""

from __future__ import annotations

import numpy as np

from penstock.tensors import deserialize_bytes, element_count
from penstock.types import NUMPY_DTYPES, Array
from penstock.workers.message_parts import InputSlot
from penstock.workers.slab import Slab


def read_inputs(slab: Slab, slot: InputSlot) -> Array:
    """The input's array, a view of the slab (BYTES: an object array of `bytes`), of `slot.shape`.

    Writable, as under Triton: models that normalise in place are common, and the bytes are this batch's alone.
    """
    if slot.datatype == "BYTES":
        data = slab.view[slot.offset : slot.offset + slot.nbytes]
        return deserialize_bytes(data, element_count(slot.shape)).reshape(slot.shape)
    return np.ndarray(
        slot.shape, dtype=NUMPY_DTYPES[slot.datatype], buffer=slab.view, offset=slot.offset
    )
