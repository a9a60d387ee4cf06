"""Arrays in a GPU's memory, whoever made them."""

from __future__ import annotations

import math
from typing import Any

from cuda.core.utils import StridedMemoryView


def view_of(array: Any) -> StridedMemoryView:
    """Its memory and shape. The caller sees to the order of streams."""
    return StridedMemoryView.from_any_interface(array, stream_ptr=-1)


def pointer(array: Any) -> int:
    """Of its first element."""
    return int(view_of(array).ptr)


def size_of(array: Any) -> int:
    """How many elements it has."""
    return math.prod(view_of(array).shape)
