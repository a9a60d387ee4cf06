"""What TLS with client certificates costs: the same requests to two servers, one in plain text, turn by turn."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from penstock_loadtest import cpu
from penstock_loadtest.caching import MODEL_INFER, TOGETHER, Ratio, ratio_of
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.servers import Penstock, RunningServer, running

MODEL: Final = "add_sub"
"""The example: next to nothing to compute."""
NAME: Final = "measured"
"""Of both certificates."""
PARTS: Final = 3
"""Of a turn: latency, CPU, new connections."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One server under load."""

    median_us: float
    """As a client sees it that keeps its connection, and asks one thing after the other, by gRPC."""
    server_cpu_us: float
    """Of a request, while several are under way."""
    connect_us: float
    """Of a connection that is new: its handshake, and one small HTTP request."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """mTLS over plain text."""

    latency: Ratio
    server_cpu: Ratio
    new_connection: Ratio


@dataclass(frozen=True, slots=True)
class Certificates:
    """A CA, a server's pair and a client's, as `penstock certs` makes them."""

    folder: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """Of `penstock serve`."""
        return (
            f"--tls-cert-file={self.folder / 'server' / NAME / 'tls.crt'}",
            f"--tls-key-file={self.folder / 'server' / NAME / 'tls.key'}",
            f"--tls-client-ca-file={self.folder / 'ca.crt'}",
            "--tls-client-auth=require",
        )

    def context(self) -> ssl.SSLContext:
        """An HTTP client's."""
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        client = self.folder / "client" / NAME
        context.load_cert_chain(client / "tls.crt", client / "tls.key")
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """A gRPC client's."""
        client = self.folder / "client" / NAME
        return grpc.ssl_channel_credentials(
            (self.folder / "ca.crt").read_bytes(),
            (client / "tls.key").read_bytes(),
            (client / "tls.crt").read_bytes(),
        )


def measure(
    command: Sequence[str],
    flags: Sequence[str],
    model_repo: Path,
    seconds: float,
    rounds: int,
    say: Callable[[str], None],
) -> Ratios:
    """The ratios of all rounds. Raises BenchmarkError."""
    only = ("--model-control-mode=explicit", f"--load-model={MODEL}", *flags)
    turns: list[tuple[Turn, Turn]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pl-")))
        certificates = _issue(command, folder / "certs")
        plain = Penstock(tuple(command), only, "plain")
        secured = Penstock(tuple(command), (*only, *certificates.flags), "mTLS")
        up = [
            stack.enter_context(running(plain, model_repo, folder / "plain.log")),
            stack.enter_context(
                running(secured, model_repo, folder / "mtls.log", certificates.context())
            ),
        ]
        for number in range(rounds + 1):
            first, second = _turn(up[0], None, seconds), _turn(up[1], certificates, seconds)
            # the first round warms both up
            if number:
                say(f"plain: {_shown(first)}; mTLS: {_shown(second)}")
                turns.append((first, second))
    return Ratios(
        ratio_of([b.median_us / a.median_us for a, b in turns]),
        ratio_of([b.server_cpu_us / a.server_cpu_us for a, b in turns]),
        ratio_of([b.connect_us / a.connect_us for a, b in turns]),
    )


def _issue(command: Sequence[str], folder: Path) -> Certificates:
    made = Certificates(folder)
    for words in (
        ("init",),
        ("issue", "server", NAME, "--ip=127.0.0.1"),
        ("issue", "client", NAME),
    ):
        done = subprocess.run(
            [*command, "certs", *words, f"--dir={folder}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"penstock certs {words[0]}: {done.stderr.strip()}")
    return made


def _turn(server: RunningServer, certificates: Certificates | None, seconds: float) -> Turn:
    part_s = seconds / PARTS
    message = _message()
    with _channel(server, certificates) as channel:
        ask = channel.unary_unary(MODEL_INFER)
        latencies_us = _repeated(lambda: ask(message, timeout=30), part_s)
        before, count = cpu.read(server.pid), 0
        end = time.monotonic() + part_s
        while time.monotonic() < end:
            for call in [ask.future(message, timeout=30) for _ in range(TOGETHER)]:
                call.result()
            count += TOGETHER
        used = cpu.between(before, cpu.read(server.pid))
    context = None if certificates is None else certificates.context()
    connects_us = _repeated(lambda: _connect(server, context), part_s)
    return Turn(median(latencies_us), used.session_s / count * 1e6, median(connects_us))


def _repeated(act: Callable[[], object], seconds: float) -> list[float]:
    """How long it takes each time, in microseconds."""
    durations_us: list[float] = []
    end = time.monotonic() + seconds
    while not durations_us or time.monotonic() < end:
        began = time.monotonic()
        act()
        durations_us.append((time.monotonic() - began) * 1e6)
    return durations_us


@contextmanager
def _channel(server: RunningServer, certificates: Certificates | None) -> Iterator[grpc.Channel]:
    channel = (
        grpc.insecure_channel(server.grpc_address)
        if certificates is None
        else grpc.secure_channel(server.grpc_address, certificates.credentials())
    )
    with channel:
        yield channel


def _connect(server: RunningServer, context: ssl.SSLContext | None) -> None:
    address = ("127.0.0.1", server.ports.http)
    connection = (
        http.client.HTTPConnection(*address, timeout=30)
        if context is None
        else http.client.HTTPSConnection(*address, timeout=30, context=context)
    )
    try:
        connection.request("GET", "/v2/health/live")
        if connection.getresponse().status != 200:
            raise BenchmarkError(f"{server.name} does not answer")
    finally:
        connection.close()


def _message() -> bytes:
    messages: Any = service_pb2
    message = messages.ModelInferRequest(model_name=MODEL)
    row = np.arange(4, dtype=np.float32)
    for name in ("INPUT0", "INPUT1"):
        message.inputs.add(name=name, datatype="FP32", shape=row.shape)
        message.raw_input_contents.append(row.tobytes())
    encoded: bytes = message.SerializeToString()
    return encoded


def _shown(turn: Turn) -> str:
    return (
        f"{turn.median_us:.0f} µs, {turn.server_cpu_us:.0f} µs of CPU,"
        f" {turn.connect_us:.0f} µs to connect"
    )
