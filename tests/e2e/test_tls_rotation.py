"""Certificates, keys and CAs that change under load: no request fails, and what is no good is not taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from certificates import DAY, Authority, Pair, client_context, replace
from secured import Files, curl, lets_in, served_serial
from served import Served
from served_models import write_add_sub
from supervised import eventually

pytestmark = pytest.mark.e2e

ROTATIONS = {"envoy": 100, "grpcio": 10}
CA_EVERY = 10
"""So many changes of the server's pair come before one of the CA, which takes three more."""
ROW = np.array([1, 2, 3, 4], np.float32)

Ask = Callable[[tuple[Path, Path]], None]


@dataclass
class Load:
    """Clients that ask one after the other, each in a thread, with the client's pair of the moment."""

    pair: tuple[Path, Path]
    asked: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, name: str, ask: Ask) -> None:
        while not self.stop.is_set():
            try:
                ask(self.pair)
            except Exception as error:  # noqa: BLE001 - that there is none is what is tested
                self.failed.append(f"{name}: {error!r}")
                return
            self.asked[name] = self.asked.get(name, 0) + 1

    def all_have_asked_anew(self) -> None:
        """Wait until nobody goes on with an earlier pair."""
        before = dict(self.asked)
        eventually(
            lambda: (
                bool(self.failed)
                or all(self.asked[name] > count + 1 for name, count in before.items())
            ),
            "a client is stuck",
        )


@contextmanager
def under(load: Load, clients: dict[str, Ask]) -> Iterator[None]:
    threads = [threading.Thread(target=load.run, args=each) for each in clients.items()]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: bool(load.failed) or len(load.asked) == len(clients), "no answers")
        yield
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()
    assert not load.failed
    assert load.asked.keys() == clients.keys()


def infer(client: Any, kind: Any) -> None:
    given = [kind.InferInput(name, ROW.shape, "FP32") for name in ("INPUT0", "INPUT1")]
    for tensor in given:
        tensor.set_data_from_numpy(ROW)
    answer = client.infer("add_sub", given)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ROW + ROW)


def clients_of(served: Served, files: Files, keeping: Any) -> dict[str, Ask]:
    """One that keeps its connection, and three that connect anew for each request."""

    def new_grpc(pair: tuple[Path, Path]) -> None:
        with files.grpc(served, pair) as client:
            infer(client, tritonclient.grpc)

    def new_http(pair: tuple[Path, Path]) -> None:
        with files.http(served, pair) as client:
            infer(client, tritonclient.http)

    def new_curl(pair: tuple[Path, Path]) -> None:
        url = f"https://localhost:{served.settings.http_port}/v2/models/add_sub/ready"
        code, said = curl(files, url, "-o", "/dev/null", "-w", "%{http_code}", pair=pair)
        assert (code, said) == (0, "200")

    return {
        "kept grpc": lambda _: infer(keeping, tritonclient.grpc),
        "new grpc": new_grpc,
        "new http": new_http,
        "curl": new_curl,
    }


@dataclass
class Rotation:
    """Changes what a server speaks TLS with, and waits until it does."""

    served: Served
    files: Files
    load: Load
    authority: Authority
    number: int = 0

    def pair(self) -> None:
        """Certificate and key."""
        pair = self.authority.issue(f"server-{self.number}")
        self.files.put(pair)
        context = client_context(self.files.ca, self.load.pair)
        ports = self.served.settings.ports().values()
        self._until(lambda: {served_serial(port, context) for port in ports} == {pair.serial})

    def authorities(self) -> None:
        """The CA: trust both, go over to the new one, trust the old one no more."""
        self.number += 1
        old, new = self.authority, Authority(f"CA {self.number}")
        both = old.certificate + new.certificate
        replace(self.files.ca, both)
        replace(self.files.client_ca, both)
        folder = self.files.folder
        old_pair, new_pair = self.load.pair, new.issue("client").write(folder, f"c{self.number}")
        port = self.served.settings.http_port
        self._until(lambda: lets_in(port, client_context(self.files.ca, new_pair)))
        self.load.pair, self.authority = new_pair, new
        # gRPC of the portable front reads the files by itself
        self._until(lambda: self._grpc_lets_in(new_pair))
        self.pair()
        self.load.all_have_asked_anew()
        replace(self.files.client_ca, new.certificate)
        self._until(lambda: not lets_in(port, client_context(self.files.ca, old_pair)))
        assert lets_in(port, client_context(self.files.ca, new_pair))

    def _grpc_lets_in(self, pair: tuple[Path, Path]) -> bool:
        with self.files.grpc(self.served, pair) as client, suppress(Exception):
            return bool(client.is_server_live())
        return False

    def _until(self, condition: Callable[[], bool]) -> None:
        eventually(lambda: bool(self.load.failed) or condition(), f"not taken: {self.served.log}")
        assert not self.load.failed


def test_no_request_fails_while_all_of_it_changes(
    serve: Callable[..., Served], front: str, tmp_path: Path
) -> None:
    write_add_sub(tmp_path / "models" / "add_sub")
    files = Files(tmp_path)
    served = serve(tmp_path / "models", front, *files.flags()).wait_ready()
    served.tls = files.context()
    load = Load(files.client)
    rotation = Rotation(served, files, load, files.authority)
    with files.grpc(served) as keeping, under(load, clients_of(served, files, keeping)):
        for number in range(1, ROTATIONS[front] + 1):
            rotation.pair()
            if number % CA_EVERY == 0:
                rotation.authorities()
    served.tls = client_context(files.ca, load.pair)
    taken = served.metrics()["penstock_tls_rotations_total"]
    assert taken >= ROTATIONS[front] * (1 + 3 / CA_EVERY)
    assert served.metrics()["penstock_tls_refused_rotations_total"] == 0
    # a server keeps no more of them than it did at the start
    assert len(list((served.run_dir / "tls").iterdir())) == 4
    bad_ones_are_refused(served, files, rotation.authority)


def bad_ones_are_refused(served: Served, files: Files, authority: Authority) -> None:
    """The old ones go on; the log says so, and the metrics."""
    context = served.tls
    assert context is not None
    port = served.settings.http_port
    serial = served_serial(port, context)
    expiry = 'penstock_tls_certificate_expiry_timestamp_seconds{kind="server"}'
    before = served.metrics()[expiry]
    files.put(Pair(authority.issue().certificate, authority.issue().key, 0))
    refused = "penstock_tls_refused_rotations_total"
    eventually(lambda: served.metrics()[refused] == 1, "it was not refused")
    assert "TLS: the new files are refused, the old ones go on, until" in served.log
    assert f"{files.server[1]} is not the key of the certificate in" in served.log
    assert served_serial(port, context) == serial
    assert served.metrics()[expiry] == before
    good = authority.issue(lasts=2 * DAY)
    files.put(good)
    eventually(lambda: served_serial(port, context) == good.serial, "the good one was not taken")
    assert served.metrics()[expiry] > before
