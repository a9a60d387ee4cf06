"""Pools that are closed at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pool_bench import Bench, Make


@pytest.fixture
async def make_pool() -> AsyncIterator[Make]:
    """`make_pool(**policy)` gives a pool without workers."""
    benches: list[Bench] = []

    def one(**policy: Any) -> Bench:
        benches.append(Bench(**policy))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.end()
