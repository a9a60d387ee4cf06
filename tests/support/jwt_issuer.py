"""An issuer of tokens: keys of each algorithm, tokens, and a web server that shows the public keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

AUDIENCE = "penstock"
JWKS_PATH = "/keys"
DISCOVERY_PATH = "/.well-known/openid-configuration"
SECRET = b"a secret of sixty-four bytes, which is what HS512 wants at least!"

_GENERATORS: Mapping[str, Callable[[], Any]] = {
    "RS": lambda: rsa.generate_private_key(65537, 2048),
    "PS": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


class IssuerKey:
    """A private key, and how its public half is shown."""

    def __init__(self, algorithm: str, key_id: str | None, private: Any = None) -> None:
        self.algorithm = "EdDSA" if algorithm == "Ed448" else algorithm
        self.key_id = key_id
        generate = _GENERATORS.get(algorithm) or _GENERATORS[algorithm[:2]]
        self.private = generate() if private is None else private

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half."""
        shown: Any = get_default_algorithms()[self.algorithm].to_jwk(
            self.private.public_key(), as_dict=True
        )
        # PyJWT says `key_ops` too, and issuers mostly don't
        shown.pop("key_ops", None)
        named = {} if self.key_id is None else {"kid": self.key_id}
        return {**shown, **named, "use": "sig", "alg": self.algorithm}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> bytes:
        """A token. `header`: in place of, or besides, what is usual; None leaves a name out."""
        usual = {"kid": self.key_id, **(header or {})}
        return jwt.encode(
            dict(claims),
            self.private,
            self.algorithm,
            {name: value for name, value in usual.items() if value is not None},
        ).encode()


@cache
def key_of(algorithm: str, key_id: str | None = "first") -> IssuerKey:
    """One for all tests: RSA keys take long to make."""
    return IssuerKey(algorithm, key_id)


def key_set(*keys: IssuerKey | Mapping[str, Any]) -> bytes:
    """As an issuer shows them."""
    listed = [key.jwk if isinstance(key, IssuerKey) else dict(key) for key in keys]
    return json.dumps({"keys": listed}).encode()


def claims_of(issuer: str, now: float | None = None, **changes: Any) -> dict[str, Any]:
    """Good ones, with changes; None leaves a claim out."""
    now = int(time.time() if now is None else now)
    usual = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "alice",
        "tenant": "team-a",
        "iat": now,
        "exp": now + 600,
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def b64(data: bytes | Mapping[str, Any]) -> bytes:
    """base64url, as tokens have it."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def hmac_token(secret: bytes, header: Mapping[str, Any], claims: Mapping[str, Any]) -> bytes:
    """A token of HS256 with any secret: PyJWT would take none that looks like a key."""
    signed = b64(header) + b"." + b64(claims)
    return signed + b"." + b64(hmac.digest(secret, signed, hashlib.sha256))


class IssuerServer:
    """Answers GET by `pages`: a path's status, headers and body, or what makes them."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.asked: list[str] = []
        """Paths, in the order they were asked for."""
        self.pages: dict[str, tuple[int, Mapping[str, str], bytes]] = {}
        self.before: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: True
        """Is called first; False: it has answered itself."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def jwks_url(self) -> str:
        """Where the keys are."""
        return self.url + JWKS_PATH

    def show(self, *keys: IssuerKey | Mapping[str, Any]) -> Self:
        """These keys from now on, and where they are."""
        self.pages[JWKS_PATH] = (200, {}, key_set(*keys))
        found = {"issuer": self.url, "jwks_uri": self.jwks_url}
        self.pages[DISCOVERY_PATH] = (200, {}, json.dumps(found).encode())
        return self

    def show_status(self, status: int, headers: Mapping[str, str] | None = None) -> Self:
        """An error, or a redirect."""
        self.pages[JWKS_PATH] = (status, headers or {}, b"")
        return self

    def close(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def serving(*keys: IssuerKey, certificate: Path | None = None) -> Iterator[IssuerServer]:
    """A server that shows these keys."""
    server = IssuerServer(certificate).show(*keys)
    try:
        yield server
    finally:
        server.close()


def _handler_of(server: IssuerServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_GET(self) -> None:
            server.asked.append(self.path)
            if not server.before(self):
                self.close_connection = True
                return
            status, headers, body = server.pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
