"""Tenants' weights that change while their requests wait."""

from __future__ import annotations

from collections import Counter

from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.weights import TenantWeights
from simulation import Job


def test_the_store_rules_then_the_settings() -> None:
    weights = TenantWeights({"a": 2.0, "b": 3.0})
    weights.follow({"b": 5.0})
    assert [weights.of(tenant) for tenant in "abc"] == [2.0, 5.0, 1.0]


def test_a_change_counts_for_who_never_stops_asking() -> None:
    weights = TenantWeights()
    batcher = Batcher[Job]("m", BatchPolicy(max_rows=1), weights.of)
    served = Counter[str]()

    def serve(batches: int) -> None:
        served.clear()
        for _ in range(batches):
            # both always have some that wait: their lanes never end
            while batcher.requests < 200:
                for tenant in "ab":
                    batcher.add(Job(tenant=tenant), 0)
            (request,), _ = batcher.take(0)
            served[request.tenant] += 1

    serve(20)
    assert served == {"a": 10, "b": 10}
    weights.follow({"a": 4.0})
    serve(2)
    serve(50)
    assert served == {"a": 40, "b": 10}
