"""Pools and repositories that are closed at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import repository_bench
from cache_bench import CacheBench
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


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[repository_bench.Make]:
    """`make(*folders, **settings)` gives a repository over folders below `tmp_path`, `a` by default."""
    benches: list[repository_bench.Bench] = []

    def one(*folders: str, **settings: Any) -> repository_bench.Bench:
        settings.setdefault("run_dir", tmp_path / "run")
        paths = [tmp_path / name for name in folders or ("a",)]
        benches.append(repository_bench.Bench(paths, **settings))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.repository.close()
        bench.link.close()


@pytest.fixture
async def make_cached() -> AsyncIterator[Callable[..., CacheBench]]:
    """`make_cached(budget_bytes, **policy)` gives a cached pool without workers."""
    benches: list[CacheBench] = []

    def one(*args: Any, **policy: Any) -> CacheBench:
        benches.append(CacheBench(*args, **policy))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.end()
