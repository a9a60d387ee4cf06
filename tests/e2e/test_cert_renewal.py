"""A server with a folder of `penstock certs` renews its certificate, and goes over to a new CA, while clients go on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc

from certificates import client_context
from penstock.cli import main
from secured import lets_in, served_serial
from served import Served
from served_models import write_add_sub
from supervised import eventually

pytestmark = pytest.mark.e2e

PLANTED = "planted-hunter2"


def assert_secret_is_nowhere(served: Served, *folders: Path) -> None:
    """Neither for `ps`, nor in logs, nor in any file of these folders and the run's own."""
    processes = served.processes()
    assert processes
    for pid in processes:
        assert PLANTED.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert PLANTED not in served.log + served.banner
    files = [p for f in (served.run_dir, *folders) for p in f.rglob("*") if p.is_file()]
    assert served.run_dir / "settings.json" in files
    for path in files:
        assert PLANTED.encode() not in path.read_bytes(), path


class Certs:
    """`penstock certs` of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str) -> None:
        assert main(["certs", *arguments, "--dir", str(self.folder)]) == 0

    def client(self, copy: Path) -> Path:
        """A copy of the client's files as they are now, as one carries them to where the client runs."""
        copy.mkdir()
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (copy / name).write_bytes((self.folder / "client/loader" / name).read_bytes())
        return copy


class Traffic:
    """Connects anew all the time, and calls over one gRPC connection too; what fails is kept."""

    def __init__(self, served: Served, client: Path) -> None:
        self._served = served
        self.context = client_context(client / "ca.crt", (client / "tls.crt", client / "tls.key"))
        self._client = client
        self.serials: list[int] = []
        self.calls = 0
        self.failures: list[str] = []

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        stop = threading.Event()
        threads = [
            threading.Thread(target=run, args=(stop,)) for run in (self._connect, self._call)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _connect(self, stop: threading.Event) -> None:
        ports = (self._served.settings.http_port, self._served.settings.grpc_port)
        while not stop.wait(0.01):
            for port in ports:
                try:
                    serial = served_serial(port, self.context)
                except OSError as error:
                    self.failures.append(f"{port}: {error}")
                    continue
                if serial not in self.serials:
                    self.serials.append(serial)

    def _call(self, stop: threading.Event) -> None:
        files: dict[str, Any] = {
            name: str(self._client / file)
            for name, file in (
                ("root_certificates", "ca.crt"),
                ("private_key", "tls.key"),
                ("certificate_chain", "tls.crt"),
            )
        }
        with tritonclient.grpc.InferenceServerClient(self._served.grpc, ssl=True, **files) as rpc:
            while not stop.wait(0.01):
                try:
                    assert rpc.is_server_ready(client_timeout=20)
                    self.calls += 1
                except (tritonclient.grpc.InferenceServerException, AssertionError) as error:
                    self.failures.append(f"gRPC: {error}")


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    """Of a CA whose key has a passphrase: the server needs it at each renewal."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(f"{PLANTED}\n")
    passphrase.chmod(0o600)
    certs = Certs(tmp_path / "certs")
    certs("init", "--trust-domain", "example.org", "--passphrase-from", f"file:{passphrase}")
    certs("issue", "client", "loader")
    return certs


def test_it_renews_itself_and_follows_a_new_ca_and_nobody_is_refused(
    certs: Certs, tmp_path: Path, front: str, serve: Callable[..., Served]
) -> None:
    certs("issue", "server", "localhost", "--lifetime", "6s")
    write_add_sub(tmp_path / "models" / "add_sub")
    flags = ["--tls-client-auth=require", f"--tls-certs-dir={certs.folder}"]
    served = serve(tmp_path / "models", front, *flags).wait_ready()
    client = certs.client(tmp_path / "client")
    traffic = Traffic(served, client)
    with traffic.flowing():
        eventually(lambda: len(traffic.serials) >= 2, "not renewed")
        certs("init", "--rotate")
        # the client knows the old CA alone
        eventually(lambda: "was renewed" in served.log and len(traffic.serials) >= 3, "not renewed")
        calls = traffic.calls
        eventually(lambda: traffic.calls > calls + 3, "no calls")
    assert traffic.failures == []
    assert_secret_is_nowhere(served, certs.folder)

    certs("renew", "loader")
    newer = certs.client(tmp_path / "newer")
    certs("renew")
    certs("init", "--retire")
    port = served.settings.http_port
    after = client_context(newer / "ca.crt", (newer / "tls.crt", newer / "tls.key"))
    assert lets_in(port, after)
    eventually(lambda: not lets_in(port, traffic.context), "the old CA's client is let in")
    assert lets_in(port, after)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tls-certs-name=other"], "has no certificate server/other: make it by penstock certs"),
        (["--tls-cert-file=x"], "tls.certs_dir has the cert_file already"),
        ([], "tls.auto_renew: file:{}/passphrase can't be read: No such file"),
        (
            ["--tls-auto-renew=false", "--tls-client-ca-file=none"],
            "tls.client_ca_file needs tls.cl",
        ),
    ],
)
def test_a_bad_start_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(PLANTED)
    passphrase.chmod(0o600)
    assert main(["certs", "init", "--passphrase-from", f"file:{passphrase}"]) == 0
    assert main(["certs", "issue", "server", "localhost"]) == 0
    passphrase.unlink()
    capsys.readouterr()
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    assert main(["serve", "models", *ports, "--tls-certs-dir=certs", *flags]) == 2
    said = capsys.readouterr().err
    assert words.format(tmp_path) in said
    assert said.count("\n") == 1
