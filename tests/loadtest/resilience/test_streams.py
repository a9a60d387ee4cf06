"""Client processes against a small gRPC server in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import msgspec
import numpy as np
import pytest

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience.answers import DEADLINE_EXCEEDED, OK, unanswered
from penstock_loadtest.resilience.open_loop import METHOD, Stream
from penstock_loadtest.resilience.sleeper import MESSAGES
from penstock_loadtest.resilience.streams import (
    PER_PROCESS,
    send,
    sending,
    split,
    together,
)

Answer = Callable[[bytes, Any], bytes]
Serve = Callable[[Answer], Stream]


def echo(body: bytes, _: Any, more: float = 0.0) -> bytes:
    """What the sleeper would answer; `more` makes it wrong."""
    row = np.frombuffer(MESSAGES.ModelInferRequest.FromString(body).raw_input_contents[0], "f4")
    contents = np.array([row[0] + more, 77], np.float32).tobytes()
    answer: bytes = MESSAGES.ModelInferResponse(raw_output_contents=[contents]).SerializeToString()
    return answer


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(answer)`: a stream to a server that answers so."""
    servers: list[grpc.Server] = []

    def start(answer: Answer) -> Stream:
        _, service, method = METHOD.split("/")
        handler = grpc.unary_unary_rpc_method_handler(answer)
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {method: handler})]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return Stream(f"127.0.0.1:{port}", 100, 0.5, patience_s=10.0, seed=1)

    yield start
    for server in servers:
        server.stop(None).wait()


def test_each_request_is_sent_once_and_accounted(serve: Serve, tmp_path: Path) -> None:
    tenants: list[str] = []

    def answer(body: bytes, context: Any) -> bytes:
        tenants.append(dict(context.invocation_metadata())["x-tenant"])
        return echo(body, context)

    polite = msgspec.structs.replace(serve(answer), tenant="polite")
    greedy = msgspec.structs.replace(polite, tenant="greedy", per_second=200.0, seed=2)
    sent = send([polite, greedy], tmp_path)
    assert {tenants.count(one.stream.tenant) - len(one.answers) for one in sent} == {0}
    answers = together(sent)
    assert len(answers) == len(tenants) > 0
    assert set(answers["code"]) == {OK}
    assert set(answers["process"]) == {77}
    assert (np.diff(answers["due_s"]) >= 0).all()
    assert (answers["sent_s"] >= answers["due_s"]).all()
    assert (answers["done_s"] >= answers["sent_s"]).all()


def test_a_client_waits_no_longer_than_it_has_patience(serve: Serve, tmp_path: Path) -> None:
    forever = threading.Event()

    def answer(body: bytes, context: Any) -> bytes:
        forever.wait()
        return echo(body, context)

    stream = msgspec.structs.replace(serve(answer), patience_s=0.1)
    try:
        (sent,) = send([stream], tmp_path)
    finally:
        forever.set()
    assert unanswered(sent.answers) == len(sent.answers) > 0
    assert set(sent.answers["code"]) == {DEADLINE_EXCEEDED}


def test_a_wrong_answer_ends_the_measurement(serve: Serve, tmp_path: Path) -> None:
    stream = serve(lambda body, context: echo(body, context, more=1.0))
    with pytest.raises(BenchmarkError, match="answers were not those of their requests"):
        send([stream], tmp_path)


def test_a_stream_without_end_ends_when_it_is_stopped(serve: Serve, tmp_path: Path) -> None:
    heard = threading.Event()

    def answer(body: bytes, context: Any) -> bytes:
        heard.set()
        return echo(body, context)

    stream = msgspec.structs.replace(serve(answer), seconds=1e6)
    with sending([stream], tmp_path) as under_way:
        assert heard.wait(60)
        assert not under_way.is_over()
        under_way.stop()
        (sent,) = under_way.outcomes()
        assert under_way.is_over()
    assert set(sent.answers["code"]) == {OK}


def test_no_client_outlives_the_block(serve: Serve, tmp_path: Path) -> None:
    stream = msgspec.structs.replace(serve(echo), seconds=1e6)
    with pytest.raises(ZeroDivisionError), sending([stream], tmp_path) as under_way:
        raise ZeroDivisionError
    assert under_way.is_over()


def test_a_client_that_does_not_begin_is_told_with_its_words(tmp_path: Path) -> None:
    stream = Stream("127.0.0.1:1", cast("float", "fast"), 1, 1, 1)
    with pytest.raises(BenchmarkError, match=r"client did not connect:[^$]*Expected `float`"):
        send([stream], tmp_path)


def test_a_client_that_fails_is_told_with_its_words(serve: Serve, tmp_path: Path) -> None:
    stream = msgspec.structs.replace(serve(echo), per_second=-1.0)
    with pytest.raises(BenchmarkError, match=r"client ended with 1:[^$]*scale < 0"):
        send([stream], tmp_path)


def test_a_load_is_split_among_processes_without_loss() -> None:
    stream = Stream("x", 5 * PER_PROCESS / 2, 1, 1, seed=3)
    parts = split(stream)
    assert len(parts) == 3
    assert sum(part.per_second for part in parts) == pytest.approx(stream.per_second)
    assert len({part.seed for part in parts}) == 3
