"""Kernels of rows, for `python -m penstock_loadtest kernels`. Of NumPy's ways to say the same, the fastest is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from penstock_kernels import pooling, ragged, rows, softmax
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array
from penstock_loadtest.kernel_case import KernelCase

Calls = tuple[Callable[[Cpu], object], Callable[[], object]]


def numpy_softmax(x: Array) -> Array:
    """As it is written with NumPy, with as few arrays in between as that allows."""
    e: Array = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e


def numpy_log_softmax(x: Array) -> Array:
    """As `numpy_softmax`."""
    difference: Array = x - x.max(-1, keepdims=True)
    difference -= np.log(np.exp(difference).sum(-1, keepdims=True))
    return difference


def numpy_top_k(x: Array, k: int) -> tuple[Array, Array]:
    """Partitioned, and the best of it sorted. Of equal elements it takes any, which is less than what the twin does."""
    indices = np.argpartition(-x, k - 1, axis=-1)[..., :k]
    values = np.take_along_axis(x, indices, -1)
    order = np.argsort(-values, axis=-1)
    return np.take_along_axis(values, order, -1), np.take_along_axis(indices, order, -1)


def numpy_masked_mean(x: Array, mask: Array) -> Array:
    """With BLAS, which is several times as fast as x * mask."""
    total: Array = np.matmul(mask.astype(np.float32)[:, np.newaxis], x)[:, 0]
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    return total


def numpy_pad(flat: Array, lengths: Array, size: int) -> tuple[Array, Array]:
    """As `workers/uneven.py` says it."""
    inside = np.arange(size) < lengths[:, np.newaxis]
    padded = np.zeros((len(lengths), size, *flat.shape[1:]), flat.dtype)
    padded[inside] = flat
    return padded, inside.astype(np.int64)


def numpy_pack(padded: Array, lengths: Array) -> Array:
    """A slice for each row."""
    pairs = zip(padded, lengths.tolist(), strict=True)
    return np.concatenate([row[:length] for row, length in pairs])


def _scores(
    kernel: Callable[[Array, Cpu], object], replaced: Callable[[Array], object], *shape: int
) -> Any:
    def make(rng: np.random.Generator) -> Calls:
        x = rng.normal(size=shape).astype(np.float32)
        return lambda cpu: kernel(x, cpu), lambda: replaced(x)

    return make


def _pooling(*shape: int) -> Callable[[np.random.Generator], Calls]:
    def make(rng: np.random.Generator) -> Calls:
        x = rng.normal(size=shape).astype(np.float32)
        lengths = rng.integers(1, shape[1] + 1, shape[0])
        mask = (np.arange(shape[1]) < lengths[:, np.newaxis]).astype(np.int64)
        return lambda cpu: pooling.masked_mean(x, mask, cpu), lambda: numpy_masked_mean(x, mask)

    return make


def _lengths(rng: np.random.Generator, count: int, size: int) -> Array:
    """Half of what is padded is padding, nearly."""
    lengths = rng.integers(1, size + 1, count)
    lengths[0] = size
    return lengths


def _padding(count: int, size: int) -> Callable[[np.random.Generator], Calls]:
    def make(rng: np.random.Generator) -> Calls:
        lengths = _lengths(rng, count, size)
        flat, splits = rng.integers(0, 30_000, lengths.sum()), ragged.splits_of(lengths)
        return (
            lambda cpu: ragged.pad(flat, splits, cpu, size, 0, np.int64),
            lambda: numpy_pad(flat, lengths, size),
        )

    return make


def _packing(count: int, size: int) -> Callable[[np.random.Generator], Calls]:
    def make(rng: np.random.Generator) -> Calls:
        lengths = _lengths(rng, count, size)
        padded, splits = rng.integers(0, 30_000, (count, size)), ragged.splits_of(lengths)
        return lambda cpu: ragged.pack(padded, splits, cpu), lambda: numpy_pack(padded, lengths)

    return make


def _slab(rng: np.random.Generator, count: int, row_bytes: int) -> tuple[Array, Array]:
    """Every other row of a slab, in any order, and none of them aligned."""
    slab = rng.integers(0, 256, 2 * count * row_bytes + 1, dtype=np.uint8)
    return slab, rng.permutation(2 * count)[:count] * row_bytes + 1


def numpy_gather(slab: Array, offsets: Array, row_bytes: int) -> Array:
    """Rows at any offsets: all that there could be are a view, of which some are taken."""
    windows: Array = np.lib.stride_tricks.sliding_window_view(slab, row_bytes)
    return windows[offsets]


def numpy_scatter(batch: Array, slab: Array, offsets: Array) -> None:
    """As `numpy_gather`."""
    windows = np.lib.stride_tricks.sliding_window_view(slab, batch.shape[1], writeable=True)
    windows[offsets] = batch


def _gathering(count: int, row_bytes: int) -> Callable[[np.random.Generator], Calls]:
    def make(rng: np.random.Generator) -> Calls:
        slab, offsets = _slab(rng, count, row_bytes)
        return (
            lambda cpu: rows.gather(slab, offsets, cpu, (row_bytes,)),
            lambda: numpy_gather(slab, offsets, row_bytes),
        )

    return make


def _scattering(count: int, row_bytes: int) -> Callable[[np.random.Generator], Calls]:
    def make(rng: np.random.Generator) -> Calls:
        slab, offsets = _slab(rng, count, row_bytes)
        batch = numpy_gather(slab, offsets, row_bytes)
        return (
            lambda cpu: rows.scatter(batch, slab, offsets, cpu),
            lambda: numpy_scatter(batch, slab, offsets),
        )

    return make


def _case(name: str, size: str, touched_bytes: int, make: Any) -> KernelCase:
    return KernelCase(name, size, touched_bytes, make)


def _top_5(x: Array, cpu: Cpu) -> object:
    return softmax.top_k(x, 5, cpu)


def _softmax_top_5(x: Array, cpu: Cpu) -> object:
    return softmax.softmax_top_k(x, 5, cpu)


_SMALL, _WIDE = (64, 1000), (8, 32_000)

CASES: tuple[KernelCase, ...] = (
    *(
        _case(
            name,
            f"{count} x {columns}",
            passes * 4 * count * columns,
            _scores(kernel, replaced, count, columns),
        )
        for name, passes, kernel, replaced in (
            ("softmax", 2, softmax.softmax, numpy_softmax),
            ("log_softmax", 2, softmax.log_softmax, numpy_log_softmax),
            ("top_k, k = 5", 1, _top_5, lambda x: numpy_top_k(x, 5)),
            ("softmax_top_k, k = 5", 1, _softmax_top_5, lambda x: numpy_top_k(numpy_softmax(x), 5)),
        )
        for count, columns in (_SMALL, _WIDE)
    ),
    _case("masked_mean", "1 x 128 x 384", 4 * 128 * 384, _pooling(1, 128, 384)),
    _case("masked_mean", "32 x 128 x 384", 4 * 32 * 128 * 384, _pooling(32, 128, 384)),
    _case("pad, with mask", "32 x 512 int64", 8 * 32 * 512 * 5 // 2, _padding(32, 512)),
    _case("pad, with mask", "256 x 1024 int64", 8 * 256 * 1024 * 5 // 2, _padding(256, 1024)),
    _case("pack", "32 x 512 int64", 8 * 32 * 512, _packing(32, 512)),
    _case("pack", "256 x 1024 int64", 8 * 256 * 1024, _packing(256, 1024)),
    _case("gather", "64 rows of 4 KiB", 2 * 64 * 4096, _gathering(64, 4096)),
    _case("gather", "512 rows of 1536 B", 2 * 512 * 1536, _gathering(512, 1536)),
    _case("scatter", "64 rows of 4 KiB", 2 * 64 * 4096, _scattering(64, 4096)),
    _case("scatter", "512 rows of 1536 B", 2 * 512 * 1536, _scattering(512, 1536)),
)
