"""The cache against a naive one, and its budget against the memory that it really takes."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.caching.answer import kept, size_bytes
from penstock.caching.byte_lru import ByteLru
from penstock.caching.counts import CacheCounts
from penstock.types import OutputTensor

pytestmark = pytest.mark.extension("response_cache")

BUDGET = 100
KEYS = st.sampled_from([bytes([n]) for n in range(8)])
OWNERS = st.integers(0, 2)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("put"), KEYS, st.integers(0, BUDGET), OWNERS),
        st.tuples(st.just("drop"), OWNERS),
    ),
    max_size=60,
)


class Naive:
    """The same, as lists: (key, value, bytes, owner), the longest unused first."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, int, int, int]] = []
        self.evictions = [0, 0, 0]

    def get(self, key: bytes) -> int | None:
        for entry in self.entries:
            if entry[0] == key:
                self.entries.remove(entry)
                self.entries.append(entry)
                return entry[1]
        return None

    def put(self, key: bytes, value: int, nbytes: int, owner: int) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != key]
        while sum(entry[2] for entry in self.entries) + nbytes > BUDGET:
            self.evictions[self.entries.pop(0)[3]] += 1
        self.entries.append((key, value, nbytes, owner))

    def drop(self, owner: int) -> None:
        self.entries = [entry for entry in self.entries if entry[3] != owner]


@given(OPERATIONS)
def test_it_is_as_the_naive_one(operations: list[tuple[object, ...]]) -> None:
    cache, naive = ByteLru[int](BUDGET), Naive()
    owners = [CacheCounts() for _ in range(3)]
    for number, operation in enumerate(operations):
        match operation:
            case "get", bytes(key):
                assert cache.get(key) == naive.get(key)
            case "put", bytes(key), int(nbytes), int(owner):
                cache.put(key, number, nbytes, owners[owner])
                naive.put(key, number, nbytes, owner)
            case "drop", int(owner):
                cache.drop(owners[owner])
                naive.drop(owner)
        assert len(cache) == len(naive.entries)
        assert cache.used_bytes == sum(entry[2] for entry in naive.entries) <= BUDGET
    for index, counts in enumerate(owners):
        own = [entry for entry in naive.entries if entry[3] == index]
        assert (counts.entries, counts.nbytes) == (len(own), sum(entry[2] for entry in own))
        assert counts.evictions == naive.evictions[index]


@pytest.mark.parametrize(("tensors", "nbytes"), [(1, 4), (3, 100), (2, 10_000)])
def test_the_budget_bounds_the_memory(tensors: int, nbytes: int) -> None:
    """All of it, keys and tables too."""
    count = 3000
    cache = ByteLru[object](1 << 40)
    counts = CacheCounts()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            _put(cache, number, tensors, nbytes, counts)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.4 * cache.used_bytes < taken <= cache.used_bytes
    cache.drop(counts)
    assert cache.used_bytes == len(cache) == 0


def test_what_is_dropped_is_freed() -> None:
    cache = ByteLru[object](1 << 40)
    counts = CacheCounts()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100):
            cache.put(bytes([number]), bytes(100_000), 100_000, counts)
        cache.drop(counts)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


def _put(
    cache: ByteLru[object], number: int, tensors: int, nbytes: int, counts: CacheCounts
) -> None:
    slab = memoryview(bytearray(nbytes))
    views = [
        OutputTensor("".join(["OUT", str(n)]), "FP32", (1, number, nbytes // 4), slab)
        for n in range(tensors)
    ]
    cache.put(number.to_bytes(32, "little"), kept(views), size_bytes(views), counts)
