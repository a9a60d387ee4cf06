"""Batches of requests whose shapes differ: where their inputs lie in the slab, with padding and masks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from penstock.errors import PenstockError
from penstock.types import NUMPY_DTYPES, Array, Uneven
from penstock.workers.client_regions import Input, RegionInput
from penstock.workers.copy_in import JOIN_BELOW_BYTES, copy_in
from penstock.workers.message_parts import InputSlot
from penstock.workers.request import PendingRequest
from penstock.workers.slab import Slab, align
from penstock.workers.uneven_plan import MaskPlan, PaddedPlan, UnevenPlan


class UnevenGathering:
    """Copies one batch into a slab. Used once."""

    def __init__(self, slab: Slab, batch: Sequence[PendingRequest], uneven: UnevenPlan) -> None:
        """Raises Unavailable when there is no memory for a larger slab."""
        self._slab = slab
        self._batch = batch
        self._uneven = uneven
        self._row_counts = [request.rows for request in batch]
        self._rows = sum(self._row_counts)
        self.slots: list[InputSlot] = []
        self.lost: dict[int, PenstockError] = {}
        """Position → error of each request whose inputs can't be read."""
        self.end = 0
        """Where outputs may begin."""
        self._ragged: dict[str, tuple[tuple[int, ...], ...]] = {}
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._inside: dict[str, Array] = {}
        slab.ensure(self._needed_bytes())

    def copy(self) -> Uneven:
        """Copy all inputs, and make the masks."""
        plan = self._batch[0].plan
        for index, name in enumerate(plan.input_names):
            padded = self._uneven.padded.get(name)
            if padded is not None:
                self._pad(index, name, padded)
            else:
                self._join(index, name)
        for mask in self._uneven.masks:
            if mask.source in self._inside:
                self._mask(mask)
        return Uneven(self._ragged, self._lengths)

    def _needed_bytes(self) -> int:
        names = self._batch[0].plan.input_names
        as_sent = [index for index, name in enumerate(names) if name not in self._uneven.padded]
        sent = sum([len(request.buffers[index]) for request in self._batch for index in as_sent])
        made = sum([_plan_of(request).nbytes for request in self._batch])
        return sent + made + align(1) * (len(names) + len(self._uneven.masks) + 1)

    def _join(self, index: int, name: str) -> None:
        plan = self._batch[0].plan
        buffers = [request.buffers[index] for request in self._batch]
        start, end = self.end, copy_in(self._slab, self.end, buffers, self.lost)
        shape = plan.shapes[index]
        if name in self._uneven.ragged:
            shapes = tuple([request.plan.shapes[index] for request in self._batch])
            self._ragged[name] = shapes
            shape = (sum(map(prod, shapes)),)
        elif len(self._batch) > 1:
            shape = (self._rows, *shape[1:])
        self._add(name, plan.datatypes[index], shape, start, end)

    def _pad(self, index: int, name: str, padded: PaddedPlan) -> None:
        lengths = [_plan_of(request).padded[name].length for request in self._batch]
        if padded.is_source:
            self._lengths[name] = tuple(lengths)
        row_lengths = np.repeat(lengths, self._row_counts)
        inside = np.arange(padded.shape[padded.axis - 1]) < row_lengths[:, np.newaxis]
        self._inside[name] = inside
        shape = (self._rows, *padded.shape)
        target: Array = np.ndarray(shape, padded.dtype, self._slab.view, self.end)
        buffers = [request.buffers[index] for request in self._batch]
        # all rows at once is fewer operations, and writes twice what is not padding
        small = all(len(b) < JOIN_BELOW_BYTES and not isinstance(b, RegionInput) for b in buffers)
        if small and padded.axis == 1:
            target[...] = padded.fill
            data = b"".join(buffers)  # type: ignore[arg-type]
            target[inside] = np.frombuffer(data, padded.dtype).reshape(-1, *padded.shape[1:])
        else:
            self._pad_each(target, padded, lengths, buffers)
        datatype = self._batch[0].plan.datatypes[index]
        self._add(name, datatype, shape, self.end, self.end + target.nbytes)

    def _pad_each(
        self, target: Array, padded: PaddedPlan, lengths: Sequence[int], buffers: Sequence[Input]
    ) -> None:
        start = 0
        before = (slice(None),) * padded.axis
        for position, (rows, length) in enumerate(zip(self._row_counts, lengths, strict=True)):
            own = target[start : start + rows]
            own[(*before, slice(length, None))] = padded.fill
            self._put(own[(*before, slice(length))], buffers[position], position)
            start += rows

    def _put(self, place: Array, buffer: Input, position: int) -> None:
        if isinstance(buffer, RegionInput):
            data = bytearray(len(buffer))
            try:
                buffer.read_into(memoryview(data))
            except PenstockError as error:
                self.lost[position] = error
            buffer = data
        place[...] = np.frombuffer(buffer, place.dtype).reshape(place.shape)

    def _mask(self, mask: MaskPlan) -> None:
        inside = self._inside[mask.source]
        shape = (self._rows, *mask.shape)
        target: Array = np.ndarray(shape, NUMPY_DTYPES[mask.datatype], self._slab.view, self.end)
        target[...] = inside.reshape(shape)
        self._add(mask.name, mask.datatype, shape, self.end, self.end + target.nbytes)

    def _add(self, name: str, datatype: str, shape: tuple[int, ...], start: int, end: int) -> None:
        self.slots.append(InputSlot(name, datatype, shape, start, end - start))
        self.end = align(end)


def _plan_of(request: PendingRequest) -> UnevenPlan:
    uneven = request.plan.uneven
    assert uneven is not None, "all requests of a model have one, or none has"
    return uneven
