"""What a server with TLS needs, and clients that try it from outside: curl, openssl, tritonclient."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tritonclient.grpc
import tritonclient.http
from cryptography import x509

from certificates import Authority, Pair, client_context, replace
from served import Served

CLIENT_URI = "spiffe://example.org/client"


@dataclass
class Files:
    """A CA, a server's pair and a client's, in a folder."""

    folder: Path
    authority: Authority = field(default_factory=Authority)

    def __post_init__(self) -> None:
        self.ca = replace(self.folder / "ca.pem", self.authority.certificate)
        self.client_ca = replace(self.folder / "client-ca.pem", self.authority.certificate)
        self.server = self.authority.issue().write(self.folder, "server")
        self.client = self.issue_client("client", uris=[CLIENT_URI])

    def issue_client(
        self, name: str, authority: Authority | None = None, **how: Any
    ) -> tuple[Path, Path]:
        """A client's pair."""
        return (authority or self.authority).issue(name, **how).write(self.folder, name)

    def put(self, pair: Pair) -> None:
        """Change the server's pair."""
        pair.write(self.folder, "server")

    def flags(self, client_auth: str = "require") -> list[str]:
        """Of `penstock serve`."""
        certificate, key = self.server
        flags = [f"--tls-cert-file={certificate}", f"--tls-key-file={key}"]
        if client_auth != "none":
            flags += [f"--tls-client-auth={client_auth}", f"--tls-client-ca-file={self.client_ca}"]
        return flags

    def context(self, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's, with its own pair or another."""
        return client_context(self.ca, pair or self.client)

    def grpc(
        self, served: Served, pair: tuple[Path, Path] | None = None
    ) -> tritonclient.grpc.InferenceServerClient:
        """NVIDIA's client for gRPC, whose connections are its own."""
        certificate, key = pair or self.client
        return tritonclient.grpc.InferenceServerClient(
            served.grpc,
            ssl=True,
            root_certificates=str(self.ca),
            private_key=str(key),
            certificate_chain=str(certificate),
            channel_args=[("grpc.use_local_subchannel_pool", 1)],
        )

    def http(
        self, served: Served, pair: tuple[Path, Path] | None = None
    ) -> tritonclient.http.InferenceServerClient:
        """NVIDIA's client for HTTP."""
        certificate, key = pair or self.client
        options = {"ca_certs": str(self.ca), "certfile": str(certificate), "keyfile": str(key)}
        return tritonclient.http.InferenceServerClient(served.http, ssl=True, ssl_options=options)


def curl(files: Files, url: str, *options: str, pair: tuple[Path, Path] | None) -> tuple[int, str]:
    """curl's exit code, and what it printed."""
    own = ["--cert", str(pair[0]), "--key", str(pair[1])] if pair else []
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--cacert", str(files.ca), *own, *options, url],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


_HTTP_1 = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_HTTP_2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    # SETTINGS, which are answered, and such as can't be: that is the end of the connection
    b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\4\0\0\0\0\0x"
)


def s_client(port: int, *options: str) -> tuple[str, str]:
    """What `openssl s_client` got from a server after the handshake, and what it says of the handshake itself."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-brief", "-ign_eof", *options],
        input=_HTTP_2 if "h2" in options else _HTTP_1,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


def served_serial(port: int, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a server shows now."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def lets_in(port: int, context: ssl.SSLContext) -> bool:
    """Whether an HTTP port answers a client with such a certificate."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return tls.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def seconds_left(timestamp: float) -> float:
    """Until then."""
    return timestamp - time.time()
