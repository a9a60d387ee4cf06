"""Registries in memory, and desks that are closed at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fake_registry import DeskBench, FakeRegistry

MakeDesk = Callable[..., DeskBench]


@pytest.fixture
def registry(tmp_path: Path) -> FakeRegistry:
    """With no models."""
    return FakeRegistry(tmp_path / "artifacts")


@pytest.fixture
async def desk(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[MakeDesk]:
    """`desk(*refs, **settings)` gives one that is not started yet, all over the same registry and cache."""
    benches: list[DeskBench] = []

    def make(*refs: str, **settings: Any) -> DeskBench:
        benches.append(DeskBench(tmp_path, registry, *refs, **settings))
        return benches[-1]

    yield make
    for bench in benches:
        await bench.close()
