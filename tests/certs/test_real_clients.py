"""OpenSSL, Python's ssl, curl and gRPC take what the CA issues, both ways, before, during and after a rotation."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from penstock.certs.folder import CertsFolder
from penstock.certs.inspection import inspect, utc_now
from penstock.certs.request import make_request
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef

YEAR_S = 365 * 86_400


def nobody(ref: SecretRef) -> Secret:
    raise AssertionError(f"{ref} was asked for")


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the same server's and client's files: before a rotation, in it, and after it."""
    base = tmp_path_factory.mktemp("certs")
    certs = CertsFolder(base / "certs", nobody)
    stages = {}

    def keep(stage: str) -> None:
        shutil.copytree(certs.path, base / stage, symlinks=True)
        stages[stage] = base / stage

    now = utc_now()
    certs.init("CA", now, YEAR_S, trust_domain="example.org")
    certs.issue(make_request("server", "localhost", trust_domain="example.org"), now)
    certs.issue(make_request("client", "loader", trust_domain="example.org"), now)
    keep("before")
    certs.rotate("CA", now, YEAR_S)
    certs.renew(["server/localhost", "client/loader"], now)
    keep("during")
    certs.retire(now)
    certs.renew(["server/localhost", "client/loader"], now)
    keep("after")
    return stages


TRUSTING = [
    # whose certificates are taken, by whom
    ("before", "before", True),
    ("before", "during", True),
    ("during", "before", True),
    ("during", "during", True),
    ("during", "after", True),
    ("after", "during", True),
    ("after", "after", True),
    ("after", "before", False),
    ("before", "after", False),
]
"""Holder, verifier: all that meet while a rotation goes on get on, and none that is over."""


@pytest.mark.parametrize(("holder", "verifier", "taken"), TRUSTING)
@pytest.mark.parametrize(
    ("label", "purpose"), [("server/localhost", "sslserver"), ("client/loader", "sslclient")]
)
def test_openssl_verify(
    rotated: dict[str, Path], holder: str, verifier: str, taken: bool, label: str, purpose: str
) -> None:
    chain = rotated[holder] / label / "tls.crt"
    trusted = rotated[verifier] / "ca.crt"
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
    command += ["-CAfile", str(trusted), "-no-CApath", "-untrusted", str(chain), str(chain)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == taken, done.stderr


@pytest.mark.parametrize(
    ("label", "yes", "no"),
    [
        ("server/localhost", "SSL server : Yes", "SSL client : No"),
        ("client/loader", "SSL client : Yes", "SSL server : No"),
    ],
)
def test_openssl_purposes(rotated: dict[str, Path], label: str, yes: str, no: str) -> None:
    path = rotated["during"] / label / "tls.crt"
    command = ["openssl", "x509", "-in", str(path), "-noout", "-purpose", "-text"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert yes in shown
    assert no in shown
    assert "CA:FALSE" in shown


@contextmanager
def tls_server(folder: Path, trusted: Path) -> Iterator[int]:
    """Asks for a client's certificate, and says who it is; once for each connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted / "ca.crt"))
    context.load_cert_chain(
        folder / "server/localhost/tls.crt", folder / "server/localhost/tls.key"
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        shown = tls.getpeercert(True)
                        assert shown is not None
                        client = x509.load_der_x509_certificate(shown)
                        (who,) = inspect(client, "client", utc_now(), None).uris
                        while b"\r\n\r\n" not in tls.recv(65536):
                            pass
                        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(who)}"
                        tls.sendall(f"{head}\r\n\r\n{who}".encode())
                except (ssl.SSLError, ConnectionError):
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(("stage", "other", "taken"), TRUSTING)
def test_curl_both_ways(rotated: dict[str, Path], stage: str, other: str, taken: bool) -> None:
    mine = rotated[other]
    with tls_server(rotated[stage], rotated[stage]) as port:
        command = ["curl", "--silent", "--show-error", "--max-time", "20"]
        command += ["--cacert", str(mine / "client/loader/ca.crt")]
        command += ["--cert", str(mine / "client/loader/tls.crt")]
        command += ["--key", str(mine / "client/loader/tls.key"), f"https://localhost:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == taken, done.stderr
    if taken:
        assert done.stdout == "spiffe://example.org/client/loader"


@pytest.mark.parametrize(("stage", "other", "taken"), TRUSTING)
def test_grpc_both_ways(rotated: dict[str, Path], stage: str, other: str, taken: bool) -> None:
    def read(folder: str, name: str) -> bytes:
        return (rotated[folder] / name).read_bytes()

    server = grpc.server(ThreadPoolExecutor(1))
    pair = (read(stage, "server/localhost/tls.key"), read(stage, "server/localhost/tls.crt"))
    credentials = grpc.ssl_server_credentials([pair], read(stage, "ca.crt"), True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    mine = grpc.ssl_channel_credentials(
        read(other, "ca.crt"),
        read(other, "client/loader/tls.key"),
        read(other, "client/loader/tls.crt"),
    )
    try:
        with grpc.secure_channel(f"localhost:{port}", mine) as channel:
            call = channel.unary_unary("/nothing/Here")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=20)
            code = caught.value.code()
        # the connection was made, and only the method is not there
        expected = grpc.StatusCode.UNIMPLEMENTED if taken else grpc.StatusCode.UNAVAILABLE
        assert code == expected, caught.value
    finally:
        server.stop(None).wait()
