"""Tenants' shares of the batches against the ideal fluid ones, and the shares of lower priority levels.

What holds, with L the largest request of a tenant, f its share of the weights, and all of one shape: no tenant that
always waits is ever ahead of the ideal by more than (1 - f)·L, nor behind by more than f·ΣL of the others. These are
the bounds of start-time fair queueing, and are reached: where many light tenants have a turn at the same time, a heavy
one may be last. Where tenants' shapes differ, a turn is a whole batch, and each L is a batch more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle, pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.levels import AGEING_BATCHES, AGEING_US
from simulation import Job

ROUNDING = 1e-6
PROPERTY = settings(max_examples=150, deadline=None, database=None)


@dataclass
class Tenant:
    """One with a weight, whose requests have these sizes in turn."""

    weight: float
    sizes: list[int]
    shape: str = "a"
    name: str = ""
    rows: int = 0
    """What it has had."""
    waiting: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.largest = max(self.sizes)
        self.next_size = cycle(self.sizes)


class Backlog:
    """A batcher with tenants that may always have more to do."""

    def __init__(self, tenants: list[Tenant], max_rows: int = 8) -> None:
        for number, tenant in enumerate(tenants):
            tenant.name = str(number)
        self.tenants = {tenant.name: tenant for tenant in tenants}
        self.max_rows = max_rows
        policy = BatchPolicy(max_rows=max_rows, merge=True)
        self.queue = Batcher[Job]("m", policy, lambda name: self.tenants[name].weight)

    def add(self, tenant: Tenant, requests: int) -> None:
        """Queue so many more."""
        for _ in range(requests):
            job = Job(rows=next(tenant.next_size), shape_key=tenant.shape, tenant=tenant.name)
            self.queue.add(job, 0)
            tenant.waiting.append(job)

    def fill(self, tenant: Tenant) -> None:
        """Let it have more than any batch can hold."""
        self.add(tenant, self.max_rows + 1 - len(tenant.waiting))

    def cancel(self, tenant: Tenant) -> None:
        """Let it have nothing."""
        assert all(self.queue.cancel(job) for job in tenant.waiting)
        tenant.waiting.clear()

    def step(self) -> int:
        """Take a batch; returns its rows."""
        batch, late = self.queue.take(0)
        assert not late
        for job in batch:
            self.tenants[job.tenant].rows += job.rows
            self.tenants[job.tenant].waiting.remove(job)
        return sum(job.rows for job in batch)


def assert_near_the_ideal(tenants: list[Tenant], turn: int = 0) -> None:
    """`turn`: rows that a tenant may get at once beside its largest request."""
    total, weights = sum(each.rows for each in tenants), sum(each.weight for each in tenants)
    for tenant in tenants:
        share = tenant.weight / weights
        error = tenant.rows - share * total
        others = sum(other.largest + turn for other in tenants if other is not tenant)
        assert error <= (1 - share) * (tenant.largest + turn) + ROUNDING
        assert error >= -share * others - ROUNDING


TENANT = st.builds(Tenant, st.floats(0.25, 8), st.lists(st.integers(1, 8), min_size=1, max_size=4))
TENANTS = st.lists(TENANT, min_size=2, max_size=6)


@PROPERTY
@given(TENANTS, st.integers(8, 20))
def test_who_always_waits_gets_its_share(tenants: list[Tenant], max_rows: int) -> None:
    backlog = Backlog(tenants, max_rows)
    for _ in range(40):
        for tenant in tenants:
            backlog.fill(tenant)
        rows = backlog.step()
        assert rows <= max_rows < rows + max(tenant.largest for tenant in tenants)
        assert_near_the_ideal(tenants)


@PROPERTY
@given(TENANTS, st.data())
def test_who_has_none_of_a_batchs_shape_neither_gains_nor_loses(
    tenants: list[Tenant], data: st.DataObject
) -> None:
    for tenant in tenants:
        tenant.shape = data.draw(st.sampled_from("abc"))
    backlog = Backlog(tenants)
    for _ in range(60):
        for tenant in tenants:
            backlog.fill(tenant)
        backlog.step()
        assert_near_the_ideal(tenants, turn=backlog.max_rows)


@PROPERTY
@given(
    TENANT,
    TENANTS,
    st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=20, max_size=60),
)
# who asks for less than its share saves nothing up, and moves no share of others
@example(Tenant(1, [1]), [Tenant(1, [1]), Tenant(1, [1])], [None] * 17 + [1, 7])
@example(Tenant(1, [1]), [Tenant(1, [1]), Tenant(0.5, [1])], [None] * 17 + [1, 1, None])
def test_a_pause_gives_no_credit_and_forgets_no_debt(
    guest: Tenant, hosts: list[Tenant], requests: list[int | None]
) -> None:
    """The guest adds so many requests before each batch, or takes back (None) what it has; the hosts always wait."""
    backlog = Backlog([guest, *hosts])
    share = guest.weight / (guest.weight + sum(host.weight for host in hosts))
    others = sum(host.largest for host in hosts)
    total = since = rows_then = 0
    for more in requests:
        for host in hosts:
            backlog.fill(host)
        if more is None:
            backlog.cancel(guest)
        elif more:
            if not guest.waiting:
                since, rows_then = total, guest.rows
            backlog.add(guest, more)
        total += backlog.step()
        # however it comes and goes, it never gets more than if it had always been there
        assert guest.rows <= share * total + (1 - share) * guest.largest + ROUNDING
        error = guest.rows - rows_then - share * (total - since)
        # the batch that was running when it came may count as one that it has waited for
        credit = share * (others + backlog.max_rows)
        assert error <= (1 - share) * guest.largest + credit + ROUNDING
        if guest.waiting:
            assert error >= -(1 - share) * guest.largest - share * others - ROUNDING
        for one, other in ((a, b) for a in hosts for b in hosts):
            ahead = one.rows / one.weight - other.rows / other.weight
            assert ahead <= one.largest / one.weight + ROUNDING


def test_what_nobody_else_could_have_had_is_not_held_against_one_for_ever() -> None:
    slow, busy = Tenant(1.0, [1]), Tenant(1.0, [1])
    backlog = Backlog([slow, busy])
    for _ in range(100):
        backlog.add(slow, 1)
        backlog.fill(busy)
        assert backlog.step() == 8
    assert (slow.rows, busy.rows) == (100, 700)
    for _ in range(3):
        backlog.fill(slow)
        backlog.fill(busy)
        backlog.step()
    assert busy.rows > 700


@PROPERTY
@given(
    batch_us=st.integers(1_000, 300_000),
    shapes=st.lists(st.sampled_from("ab"), min_size=3, max_size=3),
    levels=st.integers(2, 3),
)
def test_a_lower_level_gets_a_batch_a_period_and_the_upper_one_all_others(
    batch_us: int, shapes: list[str], levels: int
) -> None:
    """All levels always wait, for more than fits into any batch."""
    queue = Batcher[Job]("m", BatchPolicy(max_rows=4, merge=True), usual=lambda rows: batch_us)
    waiting = dict.fromkeys(range(1, levels + 1), 0)
    leaders: list[int] = []
    period_us = max(AGEING_US, AGEING_BATCHES * batch_us)
    for now_us in range(0, 6 * period_us, batch_us):
        for level, shape in zip(waiting, shapes, strict=False):
            while waiting[level] < 8:
                queue.add(Job(now_us, shape_key=shape, priority=level), now_us)
                waiting[level] += 1
        batch, _ = queue.take(now_us)
        for job in batch:
            waiting[int(job.priority)] -= 1
        (leader,) = {int(job.priority) for job in batch}
        leaders.append(leader)
    for level in range(2, levels + 1):
        times_us = [0, *(n * batch_us for n, leader in enumerate(leaders) if leader == level)]
        assert len(times_us) > 4
        for earlier_us, later_us in pairwise(times_us):
            assert period_us <= later_us - earlier_us <= period_us + (levels - 1) * batch_us
