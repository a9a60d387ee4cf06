"""Webhooks as the gateway takes them: who knows the secret is heard, and all others cost little."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.errors import ConfigError, Unauthenticated
from penstock.gateway import registry_api
from penstock.gateway.http_types import HttpRequest
from penstock.gateway.registry_api import RECORDED_PER_MINUTE, RegistryApi
from penstock.secrets.secret import Secret
from signed_webhooks import SECRET, sign

BODY = b"{}"


@dataclass
class Bench:
    """A registry that is looked at, and a secret that is read, so many times."""

    now_s: float = 1000.0
    secret: bytes = SECRET
    reads: int = 0
    looks: int = 0
    refused: list[tuple[str, int]] = field(default_factory=list)
    away: bool = False
    gate: threading.Event | None = None

    def api(self) -> RegistryApi:
        return RegistryApi(
            self,  # type: ignore[arg-type]
            self.read,
            lambda error, count: self.refused.append((error.reason, count)),
            lambda: self.now_s,
        )

    def look(self) -> None:
        self.looks += 1

    def read(self) -> Secret:
        self.reads += 1
        if self.away:
            raise ConfigError("it is away")
        if self.gate is not None:
            assert self.gate.wait(30)
        return Secret(self.secret)


async def post(api: RegistryApi, **headers: str) -> Any:
    found = {
        f"x-mlflow-{name}".replace("_", "-").encode(): v.encode() for name, v in headers.items()
    }
    (webhook,) = (route for route in api.routes() if route.method == "POST")
    request = HttpRequest("POST", found, BODY)
    return await webhook.handler({}, request)


def signed(at_s: float, secret: bytes = SECRET) -> dict[str, str]:
    at = str(int(at_s))
    return {
        "signature": sign(BODY, at=at, secret=secret).decode(),
        "delivery_id": "d1",
        "timestamp": at,
    }


async def test_what_has_no_signature_has_no_secret_read() -> None:
    bench = Bench()
    api = bench.api()
    for headers in (
        {},
        {**signed(1000), "timestamp": "x"},
        {**signed(1000), "signature": "x" * 5000},
    ):
        with pytest.raises(Unauthenticated):
            await post(api, **headers)
    assert (bench.reads, bench.looks) == (0, 0)
    assert [count for _, count in bench.refused] == [1, 1, 1]
    await post(api, **signed(1000))
    assert (bench.reads, bench.looks) == (1, 1)


async def test_many_have_it_read_once_and_a_new_one_holds_soon() -> None:
    bench = Bench(gate=threading.Event())
    assert bench.gate is not None
    api = bench.api()
    asking = [asyncio.ensure_future(post(api, **signed(1000, b"other"))) for _ in range(50)]
    await asyncio.sleep(0)
    bench.gate.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in errors} == {Unauthenticated}
    assert bench.reads == 1
    bench.secret = b"other"
    bench.now_s += registry_api.SECRET_S
    await post(api, **signed(1000, b"other"))
    assert (bench.reads, bench.looks) == (2, 1)


async def test_a_secret_that_can_t_be_read_is_tried_again() -> None:
    bench = Bench()
    api = bench.api()
    bench.away = True
    with pytest.raises(ConfigError):
        await post(api, **signed(1000))
    bench.away = False
    bench.now_s += registry_api.SECRET_S
    await post(api, **signed(1000))


async def test_of_many_that_are_refused_it_is_recorded_how_many() -> None:
    bench = Bench(now_s=1020.0)
    api = bench.api()

    async def flood(count: int) -> None:
        for _ in range(count):
            with pytest.raises(Unauthenticated):
                await post(api)

    await flood(RECORDED_PER_MINUTE + 500)
    assert [count for _, count in bench.refused] == [1] * RECORDED_PER_MINUTE
    bench.now_s += 60
    await flood(2)
    assert [count for _, count in bench.refused][RECORDED_PER_MINUTE:] == [501, 1]
