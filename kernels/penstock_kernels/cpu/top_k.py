"""The largest elements of rows, FP32."""

from __future__ import annotations

import numpy as np

from penstock_kernels.cpu.jit import inlined, jit
from penstock_kernels.cpu.order import bits_of, ordered
from penstock_kernels.cpu.softmax import LEAST, exp_of_negative, largest
from penstock_kernels.runner import Array

BLOCK = 64
"""Elements that are compared with the worst of the best so far at once, in vectors."""


@inlined
def rank_of(x: np.float32) -> np.int32:
    """Larger for what comes earlier. NaN come last, and both zeros are the same."""
    # -0.0 + 0.0 is 0.0
    rank = ordered(bits_of(x + np.float32(0)))
    return rank if x == x else np.int32(LEAST)


@inlined
def entry(rank: np.int32, index: int) -> np.int64:
    """Rank and index in one integer: larger for what comes earlier, of equal ranks the lower index."""
    return (np.int64(rank) << np.int64(32)) | (np.int64(0xFFFFFFFF) - np.int64(index))


@inlined
def index_of(key: np.int64) -> np.int64:
    """An entry's index."""
    return np.int64(0xFFFFFFFF) - (key & np.int64(0xFFFFFFFF))


@inlined
def sink(heap: Array, place: int, size: int) -> None:
    """Let the entry at `place` sink to where it is no larger than those below it."""
    key = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key


@inlined
def select(row: Array, heap: Array) -> None:
    """The row's best entries into `heap`, in descending order.

    A heap with the worst on top: an element that is better replaces it. Most elements aren't, and whole blocks are
    passed over.
    """
    count, k = row.shape[0], heap.shape[0]
    for i in range(k):
        heap[i] = entry(rank_of(row[i]), i)
    for i in range(k // 2 - 1, -1, -1):
        sink(heap, i, k)
    for start in range(k, count, BLOCK):
        end = min(start + BLOCK, count)
        best = np.int32(LEAST)
        for i in range(start, end):
            rank = rank_of(row[i])
            if rank > best:
                best = rank
        # of an equal rank the earlier index is kept
        if best <= heap[0] >> np.int64(32):
            continue
        for i in range(start, end):
            key = entry(rank_of(row[i]), i)
            if key > heap[0]:
                heap[0] = key
                sink(heap, 0, k)
    for size in range(k - 1, 0, -1):
        worst = heap[0]
        heap[0] = heap[size]
        sink(heap, 0, size)
        heap[size] = worst


@jit
def top_k(x: Array, values: Array, indices: Array, begin: int, end: int) -> None:
    """Of rows x[begin:end]; as many as `values` has columns, more than 0."""
    heap = np.empty(values.shape[1], np.int64)
    for row in range(begin, end):
        select(x[row], heap)
        for place in range(heap.shape[0]):
            index = index_of(heap[place])
            indices[row, place] = index
            values[row, place] = x[row, index]


@jit
def softmax_top_k(x: Array, values: Array, indices: Array, begin: int, end: int) -> None:
    """As `top_k`, with the probabilities of these elements. Those of the others are only summed."""
    heap = np.empty(values.shape[1], np.int64)
    for number in range(begin, end):
        row = x[number]
        select(row, heap)
        most = largest(row)
        total = np.float32(0)
        if not np.isnan(most):
            for i in range(row.shape[0]):
                total += exp_of_negative(row[i] - most)
        for place in range(heap.shape[0]):
            index = index_of(heap[place])
            indices[number, place] = index
            if np.isnan(most):
                values[number, place] = most
            else:
                values[number, place] = exp_of_negative(row[index] - most) / total
