"""Metrics by tenant: few names, and counters that never fall."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.tenant_metrics import (
    HALF_LIFE_S,
    NAMES,
    OTHER,
    TenantCounts,
    TenantMetrics,
    TopTenants,
)

scrapes = st.lists(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000)), min_size=1, max_size=30
)


@given(scrapes, st.integers(0, 4), st.integers(0, 5000))
def test_no_counter_ever_falls_and_nothing_is_lost(
    scraped: list[dict[str, int]], most: int, pause_s: int
) -> None:
    top = TopTenants(most)
    totals: dict[str, int] = defaultdict(int)
    last: dict[str, TenantCounts] = {}
    rise = 0
    for number, requests in enumerate(scraped):
        for tenant, more in requests.items():
            totals[tenant] += more
        counts = [(t, TenantCounts(n, 2 * n, 3 * n, 4 * n)) for t, n in totals.items()]
        shown = top.update(counts, number * pause_s)
        assert len(shown) <= most + 1
        assert OTHER in shown
        for name, now in shown.items():
            before = last.get(name, TenantCounts())
            assert all(a >= b for a, b in zip(now, before, strict=True))
            rise += now.requests - before.requests
            last[name] = now
        # what all counters rose by together is what there was
        assert rise == sum(totals.values())


def test_who_asks_most_now_has_a_name() -> None:
    top = TopTenants(1)
    counts = {"early": TenantCounts(1000), "late": TenantCounts(0)}
    assert set(top.update(counts.items(), 0)) == {"early", OTHER}
    counts["late"] = TenantCounts(100)
    # a little more than the other one has had lately is not enough to take its place
    assert set(top.update(counts.items(), HALF_LIFE_S)) == {"early", OTHER}
    counts["late"] = TenantCounts(1000)
    shown = top.update(counts.items(), 10 * HALF_LIFE_S)
    assert shown == {"late": TenantCounts(900), OTHER: TenantCounts(100)}
    # back again, from where it was
    counts["early"] = TenantCounts(5000)
    assert top.update(counts.items(), 20 * HALF_LIFE_S)["early"] == TenantCounts(5000)


def test_a_tenant_that_is_called_other_is_one_of_them() -> None:
    shown = TopTenants(5).update([(OTHER, TenantCounts(7)), ("a", TenantCounts(1))], 0)
    assert shown == {"a": TenantCounts(1), OTHER: TenantCounts(7)}


def test_the_families() -> None:
    metrics = TenantMetrics(lambda: [("a", TenantCounts(1, 2, 3, 4))], 5, lambda: True)
    samples = {
        (sample.name, sample.labels.get("tenant")): sample.value
        for family in metrics.families()
        for sample in family.samples
    }
    assert [samples[f"{name}_total", "a"] for name, _ in NAMES] == [1, 2, 3, 4]
    assert samples["penstock_tenant_refused_total", OTHER] == 0
    assert samples["penstock_quota_sharing", None] == 1
