"""Which slabs an instance has, and what becomes of those that are lent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from descriptors import open_descriptors
from penstock.errors import Unavailable
from penstock.workers.slab import Slab
from penstock.workers.slab_set import (
    FIRST_SLAB_BYTES,
    MAX_LENT,
    SLABS,
    SPARE_SLABS,
    Lease,
    Loans,
    SlabSet,
)


class Bench:
    """A set, and what its worker was told."""

    def __init__(self) -> None:
        self.attached: list[int] = []
        self.deaf = False
        self.loans = Loans(1 << 40)
        self.slabs = SlabSet(self._attach, self._detach)
        self.slabs.fill()

    def _attach(self, number: int, slab: Slab) -> None:
        if self.deaf:
            raise BlockingIOError
        self.attached.append(number)

    def _detach(self, number: int) -> None:
        if self.deaf:
            raise BlockingIOError
        self.attached.remove(number)

    def batch(self) -> int:
        """A slab for one."""
        number = self.slabs.next
        self.slabs.take()
        return number

    def lend(self, loans: Loans | None = None) -> tuple[int, Lease]:
        """A batch that has run, whose slab is lent."""
        number = self.batch()
        lease = self.slabs.lend(number, loans or self.loans)
        assert lease is not None
        self.slabs.put_back(number)
        return number, lease


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = open_descriptors()
    made = Bench()
    yield made
    made.slabs.close()
    assert open_descriptors() == before


def test_a_lent_slab_is_replaced_at_once(bench: Bench) -> None:
    for lent in range(10):
        bench.lend()
        assert len(bench.slabs) == SLABS + lent + 1
        assert bench.attached == list(range(SLABS + lent + 1))
    two = [bench.batch() for _ in range(SLABS)]
    assert len(set(two)) == SLABS
    assert not bench.slabs


def test_a_slab_comes_back_when_all_have_let_go(bench: Bench) -> None:
    number = bench.batch()
    other = bench.batch()
    lease = bench.slabs.lend(number, bench.loans)
    assert lease is not None
    assert bench.slabs.lend(number, bench.loans) is lease
    bench.slabs.put_back(number)
    lease.release()
    assert number not in [bench.batch() for _ in range(1)]
    assert not bench.slabs
    lease.release()
    assert bench.batch() == number
    bench.slabs.put_back(other)


def test_a_lease_that_ends_before_its_batch(bench: Bench) -> None:
    number = bench.batch()
    lease = bench.slabs.lend(number, bench.loans)
    assert lease is not None
    lease.release()
    bench.slabs.put_back(number)
    assert bench.batch() == number


def test_spare_slabs_are_kept_and_more_are_given_up(bench: Bench) -> None:
    leases = [bench.lend()[1] for _ in range(10)]
    for lease in leases:
        lease.release()
    assert len(bench.slabs) == len(bench.attached) == SLABS + SPARE_SLABS
    assert bench.loans.lent_bytes == 0
    # and these serve the next loans without a new one
    kept = list(bench.attached)
    for _ in range(10):
        bench.lend()[1].release()
    assert bench.attached == kept


def test_no_more_bytes_are_lent_than_the_bound(bench: Bench) -> None:
    loans = Loans(2 * FIRST_SLAB_BYTES)
    leases = [bench.lend(loans)[1] for _ in range(2)]
    number = bench.batch()
    assert bench.slabs.lend(number, loans) is None
    leases[0].release()
    assert bench.slabs.lend(number, loans) is not None


def test_no_more_slabs_are_lent_than_descriptors_allow(bench: Bench) -> None:
    leases = [bench.lend()[1] for _ in range(MAX_LENT)]
    number = bench.batch()
    assert bench.slabs.lend(number, bench.loans) is None
    leases[0].release()
    assert bench.slabs.lend(number, bench.loans) is not None


def test_without_memory_for_another_slab_nothing_is_lent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> Slab:
        raise Unavailable("no memory")

    number = bench.batch()
    loans = Loans(1 << 40)
    with monkeypatch.context() as patch:
        patch.setattr(Slab, "create", refuse)
        assert bench.slabs.lend(number, loans) is None
    bench.deaf = True
    assert bench.slabs.lend(number, loans) is None
    assert (loans.lent_bytes, len(bench.slabs)) == (0, SLABS)
    bench.deaf = False
    assert bench.slabs.lend(number, loans) is not None


def test_a_worker_that_does_not_listen_keeps_its_slabs(bench: Bench) -> None:
    leases = [bench.lend()[1] for _ in range(4)]
    bench.deaf = True
    for lease in leases:
        lease.release()
    assert len(bench.slabs) == SLABS + 4
    assert sorted(bench.batch() for _ in range(SLABS + 4)) == bench.attached


def test_what_is_lent_outlives_the_set(bench: Bench) -> None:
    loans = Loans(1 << 40)
    number = bench.batch()
    bench.slabs[number].view[:5] = b"hello"
    seen = bench.slabs[number].view[:5]
    lease = bench.slabs.lend(number, loans)
    assert lease is not None
    bench.slabs.close()
    bench.slabs.put_back(number)
    assert (bytes(seen), loans.lent_bytes) == (b"hello", FIRST_SLAB_BYTES)
    lease.release()
    assert loans.lent_bytes == 0
    assert not bench.slabs
