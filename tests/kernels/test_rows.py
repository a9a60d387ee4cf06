"""Rows that lie anywhere in a slab, against slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.rows import gather, scatter
from penstock_kernels.runner import Array

CASES: list[tuple[int, tuple[int, ...], Any]] = [
    (0, (3,), np.float32),
    (1, (), np.uint8),
    (5, (7,), np.uint16),
    (3, (2, 3), np.float64),
    (4, (0,), np.int32),
    (700, (401,), np.float32),
    (3, (2,), np.complex128),
]


def slab_of(rows: int, row_bytes: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Random bytes, and offsets without order or alignment of rows that do not overlap."""
    gap = row_bytes + 3
    offsets = rng.permutation(rows).astype(np.int64) * gap + 1
    return rng.integers(0, 256, rows * gap + 2, dtype=np.uint8), offsets


def reference(slab: Array, offsets: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    rows = [slab[o : o + row_bytes].copy().view(dtype).reshape(shape) for o in offsets]
    return np.stack(rows) if rows else np.empty((0, *shape), dtype)


def bits(array: Array) -> Array:
    """NaN are to be the same NaN."""
    return np.frombuffer(array.tobytes(), np.uint8)


@pytest.mark.parametrize(("rows", "shape", "dtype"), CASES, ids=str)
def test_gather_and_scatter(
    rows: int, shape: tuple[int, ...], dtype: Any, cpu: Cpu, rng: np.random.Generator
) -> None:
    row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    slab, offsets = slab_of(rows, row_bytes, rng)
    batch = gather(slab, offsets, cpu, shape, dtype)
    assert (batch.shape, batch.dtype) == ((rows, *shape), dtype)
    np.testing.assert_array_equal(bits(batch), bits(reference(slab, offsets, shape, dtype)))
    written = np.zeros_like(slab)
    scatter(batch, written, offsets, cpu)
    inside = np.zeros(len(slab), np.bool_)
    for offset in offsets:
        inside[offset : offset + row_bytes] = True
    np.testing.assert_array_equal(written, np.where(inside, slab, 0))


def test_rows_may_be_read_more_than_once(cpu: Cpu) -> None:
    slab = np.arange(8, dtype=np.uint8)
    batch = gather(slab, np.array([2, 0, 2, 1], np.int32), cpu, (3,))
    assert batch.tolist() == [[2, 3, 4], [0, 1, 2], [2, 3, 4], [1, 2, 3]]


def test_strides_and_places(cpu: Cpu, rng: np.random.Generator) -> None:
    slab, every = slab_of(8, 12, rng)
    offsets, out = every[::2], np.empty((4, 3), np.float32)
    assert gather(slab, offsets, cpu, (3,), np.float32, out) is out
    np.testing.assert_array_equal(bits(out), bits(reference(slab, offsets, (3,), np.float32)))
    expected, written = np.zeros_like(slab), np.zeros_like(slab)
    scatter(out, expected, offsets, cpu)
    scatter(np.asfortranarray(out), written, offsets, cpu)
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("offset", [-1, 5])
def test_rows_outside_are_refused(offset: int) -> None:
    slab, offsets = np.zeros(8, np.uint8), np.array([0, offset])
    message = f"row 1 is at bytes {offset} to {offset + 4}; the slab has 8"
    with pytest.raises(ValueError, match=message):
        gather(slab, offsets, Cpu(), (2,), np.int16)
    with pytest.raises(ValueError, match=message):
        scatter(np.ones((2, 2), np.int16), slab, offsets, Cpu())
    assert not slab.any()


def test_says_what_is_wrong() -> None:
    slab, offsets, cpu = np.zeros(8, np.uint8), np.array([0]), Cpu()
    with pytest.raises(ValueError, match=r"the slab is float64 \[8\]; expected uint8 \[bytes\]"):
        gather(np.zeros(8), offsets, cpu)
    with pytest.raises(ValueError, match=r"the slab is uint8 \[4\]; expected uint8"):
        gather(slab[::2], offsets, cpu)
    with pytest.raises(ValueError, match=r"offsets is float64 \[1\]; expected integers \[rows\]"):
        gather(slab, np.zeros(1), cpu)
    with pytest.raises(TypeError, match="a row is of object"):
        gather(slab, offsets, cpu, (), object)
    with pytest.raises(ValueError, match=r"batch has shape \[2\]; expected \[1, ...\]"):
        scatter(np.zeros(2), slab, offsets, cpu)
    slab.flags.writeable = False
    with pytest.raises(ValueError, match="the slab can't be written"):
        scatter(np.zeros(1), slab, offsets, cpu)


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "shape", "dtype"), [*CASES, (9, (5000,), np.float32)], ids=str)
def test_on_gpu(rows: int, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> None:
    import torch

    from penstock_kernels.cuda.runner import Cuda

    cuda = Cuda()
    row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    slab, offsets = slab_of(rows, row_bytes, rng)
    given, places = torch.from_numpy(slab).cuda(), torch.from_numpy(offsets).cuda()
    batch = torch.empty((rows, row_bytes), dtype=torch.uint8, device="cuda")
    written = torch.zeros_like(given)
    torch.cuda.synchronize()
    gather(given, places, cuda, out=batch)  # type: ignore[arg-type]
    scatter(batch, written, places, cuda)  # type: ignore[arg-type]
    cuda.wait()
    expected = np.zeros_like(slab)
    for offset in offsets:
        expected[offset : offset + row_bytes] = slab[offset : offset + row_bytes]
    np.testing.assert_array_equal(
        batch.cpu().numpy(), reference(slab, offsets, (row_bytes,), np.uint8)
    )
    np.testing.assert_array_equal(written.cpu().numpy(), expected)
    # one row before the slab, one behind it
    outside = torch.tensor([-1, len(slab)], device="cuda")
    batch = torch.ones((2, 8), dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    gather(given, outside, cuda, out=batch)  # type: ignore[arg-type]
    cuda.wait()
    assert not batch.any()
    cuda.close()
