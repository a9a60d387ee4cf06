"""The time that decoding a large message beside the event loop takes is its client's too."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grpc_calls import infer_request
from penstock.gateway.aside import LARGE_BYTES
from penstock.gateway.grpc_service import GrpcService
from penstock.gateway.http_infer import HttpInference
from penstock.gateway.http_types import HttpRequest
from penstock.model_config import ModelConfig
from penstock.types import CallTerms

DECODING_NS = 30_000_000
TERMS = CallTerms(50_000, "a")


class Clock:
    """Stands still."""

    now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


class SlowAside:
    """An Aside whose thread takes its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        self._clock.now_ns += DECODING_NS
        return work(*args)


class FakeInference:
    """An Inference that keeps what it is given."""

    def __init__(self) -> None:
        self.terms: list[CallTerms] = []

    def bind(self, header: Any, session: object, request_id: str = "") -> Any:
        model = SimpleNamespace(
            name=header.model_name, version=1, config=SimpleNamespace(output=())
        )
        return SimpleNamespace(model=model, generation=0)

    def submit(self, *args: Any) -> None:
        self.terms.append(args[-1])


class FakeRepository:
    """A ModelRepository where nothing is missing."""

    generation = 0

    def get(self, name: str, version: str) -> Any:
        """Whatever it is."""
        return SimpleNamespace(config=ModelConfig(name=name))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock


def ignore(*_: Any) -> None:
    """A `respond`."""


async def test_over_grpc(clock: Clock) -> None:
    inference: Any = FakeInference()
    state: Any = SimpleNamespace(repository=FakeRepository(), client_memory=None)
    aside: Any = SlowAside(clock)
    service = GrpcService(state, inference, aside, framed=False)
    message = infer_request(array=np.zeros((1, LARGE_BYTES // 4), np.float32)).SerializeToString()
    await service.infer_large(message, ignore, TERMS)
    service.infer(message, ignore, TERMS)
    assert inference.terms == [CallTerms(20_000, "a"), TERMS]


@pytest.mark.parametrize(("size", "left_us"), [(LARGE_BYTES, 20_000), (4, 50_000)])
async def test_over_http(clock: Clock, size: int, left_us: int) -> None:
    inference: Any = FakeInference()
    repository: Any = FakeRepository()
    aside: Any = SlowAside(clock)
    text = (
        b'{"inputs": [{"name": "X", "datatype": "UINT8", "shape": [%d],'
        b' "parameters": {"binary_data_size": %d}}]}' % (size, size)
    )
    headers = {b"inference-header-content-length": b"%d" % len(text)}
    request = HttpRequest("POST", headers, text + bytes(size))
    http = HttpInference(inference, repository, aside)
    await http.submit("m", "", request, ignore, TERMS)
    assert inference.terms == [CallTerms(left_us, "a")]
