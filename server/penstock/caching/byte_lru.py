"""A cache with a budget in bytes: what was not asked for the longest makes room."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, NamedTuple, TypeVar

from penstock.caching.counts import CacheCounts

Value = TypeVar("Value")


class _Entry(NamedTuple, Generic[Value]):
    value: Value
    nbytes: int
    owner: CacheCounts


class ByteLru(Generic[Value]):
    """Each entry has an owner, whose counts tell what became of its entries, and who may drop all of them at once."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes: Final = budget_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[bytes, _Entry[Value]] = OrderedDict()
        self._keys: dict[CacheCounts, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Value | None:
        """What was put there, which is now the last to go."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: bytes, value: Value, nbytes: int, owner: CacheCounts) -> None:
        """Keep a value that takes so many bytes, all told, and no more than the budget."""
        assert nbytes <= self.budget_bytes, "who puts it in has asked `fits`"
        if key in self._entries:
            self._remove(key)
        while self.used_bytes + nbytes > self.budget_bytes:
            self._remove(next(iter(self._entries))).evictions += 1
        self._entries[key] = _Entry(value, nbytes, owner)
        self._keys.setdefault(owner, set()).add(key)
        self.used_bytes += nbytes
        owner.nbytes += nbytes
        owner.entries += 1

    def fits(self, nbytes: int) -> bool:
        """Whether it may be put in at all."""
        return nbytes <= self.budget_bytes

    def drop(self, owner: CacheCounts) -> None:
        """Forget all that is the owner's."""
        for key in list(self._keys.get(owner, ())):
            self._remove(key)

    def _remove(self, key: bytes) -> CacheCounts:
        entry = self._entries.pop(key)
        owner = entry.owner
        keys = self._keys[owner]
        keys.remove(key)
        if not keys:
            del self._keys[owner]
        self.used_bytes -= entry.nbytes
        owner.nbytes -= entry.nbytes
        owner.entries -= 1
        return owner
