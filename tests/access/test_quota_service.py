"""Quotas follow the store of tenants, and write to it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterable, Mapping

import pytest

from penstock.access.limits import Limits
from penstock.access.quota_service import QuotaService
from penstock.access.usage import SECONDS_PER_DAY, UsageRow
from penstock.errors import ConfigError, QuotaExceeded, Unavailable
from penstock.quota_config import QuotaSettings


class Source:
    """A store in memory."""

    def __init__(self, **limits: float) -> None:
        self.generation = 1
        self.rows: list[UsageRow] = []
        self.broken = False
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.set(**limits)

    def set(self, **limits: float) -> None:
        self.given = {("acme", "*"): Limits(**limits)}  # type: ignore[arg-type]
        self.generation += 1

    def refresh(self, now: float) -> None:
        pass

    def limits(self) -> Mapping[tuple[str, str], Limits]:
        return self.given

    def weights(self) -> Mapping[str, float]:
        return {"acme": 2.0 * self.generation}

    def add_usage(self, rows: Iterable[UsageRow]) -> None:
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        self.gate.wait(60)
        if self.broken:
            raise Unavailable("the disk is full")
        self.rows += rows

    def usage_of(self, day: int) -> list[UsageRow]:
        return [row for row in self.rows if row.day == day]


def settings(**values: object) -> QuotaSettings:
    return QuotaSettings(**values)  # type: ignore[arg-type]


def admit(service: QuotaService, later_s: float = 0) -> None:
    service.of("acme").admit("m", 2, 30, time.monotonic_ns() + int(later_s * 1e9))


async def test_a_changed_limit_is_effective_at_the_next_look() -> None:
    source = Source(requests_per_s=0.001)
    heard: list[Mapping[str, float]] = []
    service = QuotaService(settings(), source, on_weights=heard.append)
    admit(service)
    with pytest.raises(QuotaExceeded):
        admit(service)
    assert heard == [{"acme": 4.0}]
    source.set(requests_per_s=0.001, burst_requests=2)
    admit(service, later_s=0.2)
    with pytest.raises(QuotaExceeded):
        admit(service, later_s=0.2)
    assert heard == [{"acme": 4.0}, {"acme": 6.0}]


async def test_use_is_written_in_a_thread_and_at_the_end() -> None:
    source = Source()
    service = QuotaService(settings(usage_flush_secs=3600), source)
    service.start()
    admit(service)
    admit(service)
    await service.flush()
    day = int(time.time() // SECONDS_PER_DAY)
    assert source.rows == [UsageRow("acme", "m", day, 2, 4, 60)]
    assert threading.current_thread().name not in source.threads
    admit(service)
    await service.close()
    assert source.rows[1:] == [UsageRow("acme", "m", day, 1, 2, 30)]


async def test_the_next_server_goes_on_with_what_was_used_today() -> None:
    source = Source(requests_per_day=3)
    first = QuotaService(settings(), source)
    admit(first)
    admit(first)
    await first.close()
    second = QuotaService(settings(), source)
    admit(second)
    with pytest.raises(QuotaExceeded, match="may send 3 requests a day"):
        admit(second)
    await second.close()
    assert sum(row.requests for row in source.rows) == 3


async def test_what_can_t_be_written_is_not_lost() -> None:
    source = Source()
    service = QuotaService(settings(), source)
    admit(service)
    source.broken = True
    await service.flush()
    admit(service)
    source.broken = False
    await service.close()
    (row,) = source.rows
    assert row.requests == 2


async def test_a_write_under_way_at_the_end_is_written_once() -> None:
    source = Source()
    service = QuotaService(settings(usage_flush_secs=0.1), source)
    service.start()
    source.gate.clear()
    admit(service)
    await asyncio.to_thread(source.begun.wait, 10)
    closing = asyncio.ensure_future(service.close())
    await asyncio.sleep(0)
    source.gate.set()
    await closing
    (row,) = source.rows
    assert row.requests == 1


async def test_without_the_package_redis_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"install penstock\[redis\]"):
        QuotaService(settings(redis_url="redis://localhost"), Source())
