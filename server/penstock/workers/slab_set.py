"""The slabs of one instance. A batch has one until it is answered; who reads the answer later is lent the slab, and the
instance gets another one in its place, so that nobody who holds a slab can stall the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from penstock.errors import PenstockError, Unavailable
from penstock.types import OutputTensor
from penstock.workers.slab import Slab

log = logging.getLogger(__name__)

SLABS: Final = 2
"""One batch runs while the next is gathered."""

SPARE_SLABS: Final = 2
"""Those that came in place of lent ones and are kept when these are back; more are given up."""

FIRST_SLAB_BYTES: Final = 256 * 1024

LEND_FROM_BYTES: Final = 32 * 1024
"""Answers below are copied: that takes less time than another slab, and holds less memory."""


MAX_LENT: Final = 64
"""Slabs that a model may have lent: each takes descriptors, here and in its worker."""


class Loans:
    """Counts the slabs that a model has lent, all its instances together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.lent = 0
        self.lent_bytes = 0

    def take(self, nbytes: int) -> bool:
        """Whether one of so many bytes may be lent, which is counted then."""
        if self.lent == MAX_LENT or self.lent_bytes + nbytes > self.limit_bytes:
            return False
        self.lent += 1
        self.lent_bytes += nbytes
        return True

    def give_back(self, nbytes: int) -> None:
        """It is back."""
        self.lent -= 1
        self.lent_bytes -= nbytes


class Lease:
    """Keeps a slab as it is until all who hold it have let go."""

    __slots__ = ("_ended", "_holders")

    def __init__(self, ended: Callable[[], None]) -> None:
        """The batch holds it first."""
        self._ended = ended
        self._holders = 1

    def hold(self) -> None:
        """One more does."""
        self._holders += 1

    def release(self) -> None:
        """One of them has done with it."""
        self._holders -= 1
        if not self._holders:
            self._ended()


class SlabSet:
    """Numbers are never used twice. `attach` and `detach` tell the worker; either may raise OSError, without effect."""

    def __init__(self, attach: Callable[[int, Slab], None], detach: Callable[[int], None]) -> None:
        self._attach = attach
        self._detach = detach
        self._slabs: dict[int, Slab] = {}
        self._free: list[int] = []
        self._lent: dict[int, Lease] = {}
        self._next = 0

    def __bool__(self) -> bool:
        """Whether one is free."""
        return bool(self._free)

    def __getitem__(self, number: int) -> Slab:
        return self._slabs[number]

    def __len__(self) -> int:
        return len(self._slabs)

    def fill(self) -> None:
        """Make the first ones. Raises Unavailable without memory for them."""
        while len(self._slabs) < SLABS:
            self._add()

    @property
    def next(self) -> int:
        """The free one that is to be taken; its pages are the warmest."""
        return self._free[-1]

    def take(self) -> None:
        """It has a batch now."""
        self._free.pop()

    def put_back(self, number: int) -> None:
        """The batch has done with it."""
        lease = self._lent.get(number)
        if lease is not None:
            lease.release()
        elif number in self._slabs:
            self._free.append(number)

    def lend(self, number: int, loans: Loans) -> Lease | None:
        """Keep the slab of a batch beyond that batch: `release` it. None where there is no memory for that."""
        lease = self._lent.get(number)
        if lease is None:
            nbytes = self._slabs[number].size_bytes
            if not loans.take(nbytes):
                return None
            if len(self._slabs) - len(self._lent) <= SLABS and not self._replace():
                loans.give_back(nbytes)
                return None
            lease = self._lent[number] = Lease(partial(self._returned, number, loans, nbytes))
        lease.hold()
        return lease

    def close(self) -> None:
        """Unmap all. What was lent stays mapped for as long as it is looked at."""
        for slab in self._slabs.values():
            slab.close()
        self._slabs.clear()
        self._free.clear()

    def _returned(self, number: int, loans: Loans, nbytes: int) -> None:
        loans.give_back(nbytes)
        del self._lent[number]
        if number not in self._slabs:
            # the instance has ended meanwhile
            return
        if len(self._slabs) - len(self._lent) > SLABS + SPARE_SLABS:
            self._give_up(number)
        else:
            self._free.append(number)

    def _replace(self) -> bool:
        try:
            self._add()
        except (Unavailable, OSError) as error:
            log.warning("no slab more, so outputs are copied: %s", error)
            return False
        return True

    def _add(self) -> None:
        slab = Slab.create(FIRST_SLAB_BYTES)
        try:
            self._attach(self._next, slab)
        except BaseException:
            slab.close()
            raise
        self._slabs[self._next] = slab
        self._free.insert(0, self._next)
        self._next += 1

    def _give_up(self, number: int) -> None:
        try:
            self._detach(number)
        except OSError:
            # the worker is too busy to listen
            self._free.insert(0, number)
        else:
            self._slabs.pop(number).close()


def worth_lending(outputs: Sequence[OutputTensor] | PenstockError) -> bool:
    """Whether an answer is so large that copying it would cost more than lending its slab."""
    if isinstance(outputs, PenstockError):
        return False
    return sum([len(output.data) for output in outputs]) >= LEND_FROM_BYTES
