"""Two keepers that share limits through a real Redis: what they may have together, and what they do when it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority, replace
from free_ports import free_port
from penstock.access.limits import Limits
from penstock.access.quota_plan import Lease
from penstock.access.quotas import LimitsOf, QuotaKeeper
from penstock.access.redis_client import RedisClient
from penstock.access.redis_sharing import RedisAway, RedisSharing
from penstock.errors import QuotaExceeded, Unavailable
from penstock.quota_config import QuotaSettings
from redis_server import RedisServer

PATIENCE_S = 60.0
WRONG = "invalid username-password pair"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


class Replica:
    """One server's quotas."""

    def __init__(self, limits: LimitsOf, url: str, **settings: Any) -> None:
        # shorter, and a machine that is busy would be taken for a Redis that is away
        settings = {"redis_timeout_secs": 10, **settings}
        self.settings = QuotaSettings(redis_url=url, **settings)
        self.keeper = QuotaKeeper(time.monotonic_ns())
        self.client = RedisClient(self.settings)
        self.sharing = RedisSharing(self.settings, self.client, lambda: self.keeper.usage.day)
        self.keeper.set_limits(limits, time.monotonic_ns())
        self.keeper.share(self.sharing)
        self.sharing.start()

    def admit(self, rows: int = 1, nbytes: int = 10) -> Lease | None:
        return self.keeper.of("acme").admit("m", rows, nbytes, time.monotonic_ns())

    def admits(self, **request: int) -> int:
        """1 if a request passes."""
        try:
            self.admit(**request)
        except QuotaExceeded:
            return 0
        return 1

    async def connected(self) -> None:
        await until(lambda: not self.sharing.away)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.002)


@asynccontextmanager
async def replicas(
    count: int, limits: Mapping[str, float], url: str, **settings: Any
) -> AsyncIterator[list[Replica]]:
    of = {("acme", "*"): Limits(**limits)}  # type: ignore[arg-type]
    made = [Replica(of, url, **settings) for _ in range(count)]
    try:
        for replica in made:
            await replica.connected()
        # each knows of all others
        for replica in made:
            replica.sharing.used(replica.keeper.plan("acme", "m").scopes[0])
        await until(lambda: all(replica.sharing.servers == count for replica in made))
        yield made
    finally:
        for replica in made:
            await replica.sharing.close()


async def spend(servers: list[Replica], seconds: float) -> tuple[int, float]:
    """Ask as often as can be; how many requests passed, and how long it took."""
    began, passed = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        passed += sum(server.admits() for server in servers)
        await asyncio.sleep(0.001)
    return passed, time.monotonic() - began


async def spend_all(servers: list[Replica], count: int) -> int:
    """Ask until so many requests have passed, and then some more; how many passed in all."""
    passed = 0

    def enough() -> bool:
        nonlocal passed
        passed += sum(server.admits() for server in servers)
        return passed >= count

    await until(enough)
    return passed + (await spend(servers, 0.1))[0]


async def test_two_have_together_what_one_may_have(redis: RedisServer) -> None:
    limits = {"requests_per_s": 200, "burst_requests": 40}
    async with replicas(2, limits, redis.url) as servers:
        passed, seconds = await spend(servers, 0.7)
        chunk = servers[0].sharing.shares(servers[0].keeper.plan("acme", "m").scopes[0])[0].chunk
        assert chunk == 4
        # on credit: of each server a chunk and one request
        assert passed <= 200 * seconds + 40 + 2 * (chunk + 1)
        # and neither starves
        for server in servers:
            await until(server.admits)


async def test_one_alone_may_have_all_of_it(redis: RedisServer) -> None:
    limits = {"requests_per_s": 0.001, "burst_requests": 100}
    async with replicas(2, limits, redis.url, redis_lease_secs=1) as (busy, _):
        chunk = busy.sharing.shares(busy.keeper.plan("acme", "m").scopes[0])[0].chunk
        assert 100 <= await spend_all([busy], 100) <= 100 + chunk + 1


async def test_what_is_in_flight_is_shared(redis: RedisServer) -> None:
    async with replicas(2, {"in_flight": 4, "queued_bytes": 1000}, redis.url) as (one, two):
        held = [one.admit() for _ in range(2)]  # half of it, without asking
        scope = two.keeper.plan("acme", "m").scopes[0]

        def sees(limit: int) -> Callable[[], bool]:
            def look() -> bool:
                two.sharing.used(scope)
                return scope.max_in_flight == limit

            return look

        # one has two, and room for a third
        await until(sees(1))
        held.append(two.admit())
        with pytest.raises(QuotaExceeded, match="may have 4 requests in flight, and has as many"):
            two.admit()
        for lease in held:
            assert lease is not None
            lease.release()
        # all of it is free: the half of it without asking, the rest after an answer
        await until(sees(2))
        again = []

        def fills() -> bool:
            if two.admits():
                again.append(1)
            return len(again) == 4

        await until(fills)
        assert not two.admits()


async def test_totals_of_a_day_are_shared_and_outlive_a_server(redis: RedisServer) -> None:
    async with replicas(2, {"requests_per_day": 6}, redis.url) as (one, two):
        for _ in range(3):
            one.admit()
        scope = two.keeper.plan("acme", "m").scopes[0]

        def knows() -> bool:
            two.sharing.used(scope)
            return scope.max_day[0] == 3

        await until(knows)
        await one.sharing.close()
        two.admit()
        two.admit()
        two.admit()
        with pytest.raises(QuotaExceeded, match="may send 6 requests a day"):
            two.admit()
        # Redis forgets all, but each server knows its own part
        redis.kill()
        await until(lambda: not spoken(two))
        redis.start()
        await two.connected()
        with pytest.raises(QuotaExceeded, match="may send 6 requests a day"):
            for _ in range(7):
                two.admit()


def spoken(replica: Replica) -> bool:
    """Have it talk to Redis; whether it thinks that it is there."""
    replica.sharing.used(replica.keeper.plan("acme", "m").scopes[0])
    return not replica.sharing.away


async def test_a_server_that_dies_holds_nothing_for_long(redis: RedisServer) -> None:
    limits = {"in_flight": 2}
    async with replicas(2, limits, redis.url, redis_lease_secs=1) as (one, two):
        one.admit()
        # the second place is nobody's, but that has to be asked first
        await until(one.admits)
        scope = two.keeper.plan("acme", "m").scopes[0]

        def sees(limit: int) -> Callable[[], bool]:
            def look() -> bool:
                two.sharing.used(scope)
                return scope.max_in_flight == limit

            return look

        await until(sees(0))
        # as a process that was killed: it says no word any more
        task = one.sharing._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        one.sharing._task, one.sharing.away = None, True
        await until(sees(2))
        assert two.sharing.servers == 1


async def test_locally_each_goes_by_the_limits_alone(redis: RedisServer) -> None:
    limits = {"requests_per_s": 0.001, "burst_requests": 8}
    async with replicas(2, limits, redis.url) as servers:
        passed = await spend_all(servers, 8)
        assert passed <= 8 + 2 * 2
        redis.kill()
        await until(lambda: not any(map(spoken, servers)))
        # eight each, of which they have had some
        assert passed + await spend_all(servers, 16 - passed) == 16
        redis.start()
        for server in servers:
            await server.connected()
        assert sum(server.admits() for server in servers) == 0


@pytest.mark.parametrize("silent", [True, False])
async def test_refused_while_it_is_away(redis: RedisServer, silent: bool) -> None:
    limits = {"requests_per_s": 1000.0}
    settings = {"when_redis_is_away": "refuse", "redis_timeout_secs": 1}
    async with replicas(1, limits, redis.url, **settings) as (one,):
        one.admit()
        redis.stop() if silent else redis.kill()
        await until(lambda: not spoken(one))
        with pytest.raises(Unavailable, match="the quotas can't be looked up now") as raised:
            one.admit()
        assert raised.value.retry_after_s == 1
        # who has no limits needs nobody to say so
        one.keeper.of("other").admit("m", 1, 1, time.monotonic_ns())
        redis.go_on() if silent else redis.start()
        await one.connected()
        one.admit()


async def test_allowed_while_it_is_away(redis: RedisServer) -> None:
    limits = {"requests_per_s": 1.0, "in_flight": 1}
    async with replicas(1, limits, redis.url, when_redis_is_away="allow") as (one,):
        lease = one.admit()
        redis.kill()
        await until(lambda: not spoken(one))
        leases = [lease, *(one.admit() for _ in range(5))]
        redis.start()
        await one.connected()
        assert one.keeper.in_flight("acme") == 6
        for lease in leases:
            assert lease is not None
            lease.release()
        assert one.keeper.in_flight("acme") == 0


async def test_a_changed_limit_is_no_refill_for_anybody(redis: RedisServer) -> None:
    limits = {"requests_per_s": 0.001, "burst_requests": 4}
    async with replicas(2, limits, redis.url) as servers:
        passed, _ = await spend(servers, 0.1)
        for server in servers:
            server.keeper.set_limits(
                {("acme", "*"): Limits(requests_per_s=0.001, burst_requests=5)},
                time.monotonic_ns(),
            )
        more, _ = await spend(servers, 0.1)
        assert passed + more <= 5 + 2 * 2


async def test_an_idle_server_gives_back_what_it_took(redis: RedisServer) -> None:
    limits = {"requests_per_s": 0.001, "burst_requests": 40}
    async with replicas(2, limits, redis.url, redis_lease_secs=1) as (
        one,
        two,
    ):
        one.admit()
        (share,) = one.sharing.shares(one.keeper.plan("acme", "m").scopes[0])
        await until(lambda: share.credit > 0)
        await until(lambda: share.credit == 0)
        assert await spend_all([two], 39) <= 39 + 5


async def test_the_password_is_asked_for_at_each_connection() -> None:
    redis = RedisServer(password="sesame")
    try:
        settings = QuotaSettings(redis_url=redis.url, redis_timeout_secs=10)
        tried: list[str] = []

        def password() -> str:
            tried.append("wrong" if not tried else "sesame")
            return tried[-1]

        keeper = QuotaKeeper(time.monotonic_ns())
        sharing = RedisSharing(settings, RedisClient(settings, password), lambda: keeper.usage.day)
        sharing.start()
        await until(lambda: not sharing.away)
        await sharing.close()
        assert tried[:2] == ["wrong", "sesame"]
    finally:
        redis.close()


async def test_the_log_says_why_it_is_away_at_once_and_when_that_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the start on, also when nobody has a limit yet; not with each try."""
    redis = RedisServer(password="sesame")
    given, tries = "wrong", 0

    def password() -> str:
        nonlocal tries
        tries += 1
        return given

    async def tried_again() -> None:
        before = tries
        await until(lambda: tries > before + 1)

    def complaints() -> list[str]:
        return [text for text in caplog.messages if "is away" in text]

    try:
        settings = QuotaSettings(redis_url=redis.url, redis_timeout_secs=10)
        keeper = QuotaKeeper(time.monotonic_ns())
        sharing = RedisSharing(settings, RedisClient(settings, password), lambda: keeper.usage.day)
        keeper.share(sharing)
        sharing.start()
        await until(complaints)
        await tried_again()
        (told,) = complaints()
        assert WRONG in told
        assert "each server goes by the limits alone" in told
        assert sharing.away
        redis.kill()
        await until(lambda: WRONG not in complaints()[-1])
        given = "sesame"
        redis.start()
        await until(lambda: not sharing.away)
        given = "wrong"
        # it is noticed when there is something to say
        redis.kill()
        before = len(complaints())
        keeper.set_limits({("acme", "*"): Limits(requests_per_s=1.0)}, time.monotonic_ns())
        await until(lambda: len(complaints()) > before)
        redis.start()
        await until(lambda: WRONG in complaints()[-1])
        await sharing.close()
    finally:
        redis.close()


async def test_over_tls_both_show_a_certificate(tmp_path: Path) -> None:
    authority = Authority()
    ca = replace(tmp_path / "ca.pem", authority.certificate)
    other = replace(tmp_path / "other.pem", Authority("Other CA").certificate)
    certificate, key = authority.issue().write(tmp_path, "both")
    port = free_port()
    files = (*("--tls-cert-file", str(certificate)), *("--tls-key-file", str(key)))
    redis = RedisServer(flags=("--tls-port", str(port), *files, "--tls-ca-cert-file", str(ca)))
    limits = {("acme", "*"): Limits(requests_per_s=1.0)}
    shown: dict[str, Any] = {"redis_cert_file": certificate, "redis_key_file": key}
    try:
        url = f"rediss://127.0.0.1:{port}/0"
        good = Replica(limits, url, redis_ca_file=ca, **shown)
        await good.connected()
        bad = RedisClient(
            QuotaSettings(redis_url=url, redis_timeout_secs=10, redis_ca_file=other, **shown)
        )
        with pytest.raises(RedisAway, match="certificate verify failed"):
            await bad.ask(())
        await bad.close()
        nobody = RedisClient(QuotaSettings(redis_url=url, redis_timeout_secs=10, redis_ca_file=ca))
        with pytest.raises((RedisAway, OSError)):
            await nobody.ask(())
        await nobody.close()
        await good.sharing.close()
    finally:
        redis.close()
