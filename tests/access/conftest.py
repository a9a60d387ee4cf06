"""A store of tenants, and a clock that tests set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.access.tenants import TenantStore

NOON = 20_000 * 86_400 + 43_200.0


class Clock:
    """Stands still until it is set."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tenants.db"


@pytest.fixture
def store(file: Path, clock: Clock) -> Iterator[TenantStore]:
    made = TenantStore(file, clock=clock)
    yield made
    made.close()
