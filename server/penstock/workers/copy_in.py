"""Copies the bytes of requests into a slab."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from penstock.errors import PenstockError
from penstock.workers.client_regions import Input, RegionInput
from penstock.workers.slab import Slab

JOIN_BELOW_BYTES: Final = 4096
"""Smaller buffers are joined first: one copy more, but one Python operation instead of one a request."""


def copy_in(
    slab: Slab, offset: int, buffers: Sequence[Input], lost: dict[int, PenstockError]
) -> int:
    """Copy them into the slab, side by side; the end. `lost` gets the position of each that can't be read."""
    view = slab.view
    if len(buffers) > 1 and len(buffers[0]) < JOIN_BELOW_BYTES:
        # where shapes differ, one of the others may lie in a client's memory, and is no bytes
        with suppress(TypeError):
            buffers = [b"".join(buffers)]  # type: ignore[arg-type]
    for position, buffer in enumerate(buffers):
        end = offset + len(buffer)
        if isinstance(buffer, RegionInput):
            try:
                buffer.read_into(view[offset:end])
            except PenstockError as error:
                lost[position] = error
        else:
            view[offset:end] = buffer
        offset = end
    return offset
