"""Memory of the machine that GPUs copy to and from."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from importlib import import_module

import numpy as np

from penstock.backends.isolation import one_line
from penstock.types import Array

Allocate = Callable[[int], Array]
"""A count of bytes → that many, as UINT8."""

log = logging.getLogger(__name__)


def host_memory() -> Allocate:
    """Pinned memory where it can be had, else any."""
    try:
        return pinned_memory()
    except Exception as error:  # noqa: BLE001 (whatever CUDA says: copies are slower then)
        log.warning("outputs lie in memory that is not pinned: %s", one_line(error))
        return lambda nbytes: np.empty(nbytes, np.uint8)


def pinned_memory() -> Allocate:
    """Memory that a GPU copies to and from at full speed. Raises ImportError, or what CUDA says."""
    core = import_module("cuda.core")
    core.Device(0).set_current()
    resource = core.LegacyPinnedMemoryResource()

    def allocate(nbytes: int) -> Array:
        buffer = resource.allocate(max(nbytes, 1))
        raw = (ctypes.c_uint8 * nbytes).from_address(int(buffer.handle))
        # the memory is given back with the last array over it
        raw.owner = buffer  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(raw)

    return allocate
