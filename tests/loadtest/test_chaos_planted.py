"""Real clients against a server that lies: what it does wrong is in the books."""

from __future__ import annotations

import asyncio
import http.server
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from penstock_loadtest.chaos.actors import ask_in_turn
from penstock_loadtest.chaos.asking import Role, Scene
from penstock_loadtest.chaos.books import Balance, Books, Kind
from penstock_loadtest.chaos.models import Target
from penstock_loadtest.chaos.raw_http import RawHttp
from penstock_loadtest.chaos.relay import Habits, Relay

TARGET = Target("liar", 1, 4)
ENOUGH = 30
"""Answers, after which a run is over."""


class Liar(http.server.ThreadingHTTPServer):
    """Answers Y = 2 X + 1 in JSON, and every third time something else."""

    def __init__(self, lie: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lie = lie
        self.asked = 0
        self.enough = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection to the liar."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = self.headers["inference-header-content-length"]
        body = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(body[: int(length)] if length else body)
        liar = self.server
        assert isinstance(liar, Liar)
        liar.asked += 1
        if liar.asked >= ENOUGH:
            liar.enough.set()
        lie = liar.lie if liar.asked % 3 == 0 else ""
        if lie == "hang up":
            self.close_connection = True
            return
        answer = self.answer(request, body, lie)
        for _ in range(2 if lie == "twice" else 1):
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def answer(self, request: dict[str, Any], body: bytes, lie: str) -> bytes:
        (tensor,) = request["inputs"]
        rows, columns = tensor["shape"]
        x = np.array(tensor.get("data") or np.frombuffer(body[-4 * rows * columns :], np.float32))
        y = 2 * x + (2 if lie == "wrong" else 1)
        output = {"name": "Y", "datatype": "FP32", "shape": [rows, columns], "data": y.tolist()}
        request_id = "somebody else's" if lie == "mixed up" else request["id"]
        return json.dumps({"id": request_id, "outputs": [output]}).encode()

    def log_message(self, format: str, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def liar(lie: str) -> Iterator[Liar]:
    """A liar that listens."""
    with Liar(lie) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def books_of(lie: str) -> Balance:
    """What an honest client has in its books after some answers."""
    with liar(lie) as server:
        scene = Scene(1, f"127.0.0.1:{server.server_port}", "", Books(), threading.Event())
        role = Role("client", TARGET, pause_s=0.001)
        make = partial(RawHttp, scene.http, random.Random(1))
        thread = threading.Thread(target=ask_in_turn, args=(scene, role, make))
        thread.start()
        assert server.enough.wait(30)
        scene.stop.set()
        thread.join()
        scene.books.close_missing()
        return scene.books.balance()


def test_an_honest_server_passes() -> None:
    balance = books_of("")
    assert balance.problem_count == 0
    assert balance.by_kind()[Kind.OK] >= ENOUGH


@pytest.mark.parametrize(
    ("lie", "kind", "text"),
    [
        ("wrong", Kind.WRONG, "values of Y"),
        ("mixed up", Kind.WRONG, "the answer of request 'somebody else's' came"),
        ("twice", Kind.DOUBLE, "after the response came b'HTTP/1.1 200"),
        ("hang up", Kind.LINK_LOST, "the connection ended"),
    ],
)
def test_a_liar_is_found(lie: str, kind: Kind, text: str) -> None:
    balance = books_of(lie)
    assert balance.problem_count >= ENOUGH // 3 - 1
    assert {problem.kind for problem in balance.problems} == {kind}
    assert text in balance.problems[0].detail


async def behind(habits: Habits, allowed: frozenset[Kind]) -> tuple[Balance, Relay]:
    """The books of a client behind a relay, and the relay. The server is honest."""
    with liar("") as server:
        relay = Relay(server.server_port, habits, random.Random(3))
        address = await relay.start()
        scene = Scene(1, address, "", Books(), threading.Event())
        role = Role("client", TARGET, allowed, relay.cut_since, pause_s=0.001)
        make = partial(RawHttp, address, random.Random(1))
        asking = asyncio.create_task(asyncio.to_thread(ask_in_turn, scene, role, make))
        assert await asyncio.to_thread(server.enough.wait, 30)
        scene.stop.set()
        await asking
        await relay.close()
        return scene.books.balance(), relay


async def test_a_relay_cuts_half_way_and_says_so() -> None:
    """What chaos itself has cut is explained; the rest passes as it is."""
    allowed = frozenset({Kind.OK, Kind.CUT})
    balance, relay = await behind(Habits(cut_after_bytes=3_000), allowed)
    kinds = balance.by_kind()
    assert balance.problems == ()
    assert kinds[Kind.OK] > 0
    assert 0 < kinds[Kind.CUT] <= relay.cuts


async def test_a_relay_that_stalls_loses_nothing() -> None:
    habits = Habits(stall_s=0.01, stall_share=0.5)
    balance, relay = await behind(habits, frozenset({Kind.OK}))
    assert balance.problems == ()
    assert relay.stalls > 0
