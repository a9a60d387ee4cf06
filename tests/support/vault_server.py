"""A small HTTP server that speaks the part of Vault's documented API that Penstock uses: a real Vault can't be
installed where the tests run."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

Answer = tuple[int, dict[str, Any]]

_MISSING: Final[Answer] = (404, {"errors": []})
_DENIED: Final[Answer] = (403, {"errors": ["permission denied"]})


@dataclass
class Token:
    """One that was given out."""

    ttl_s: int
    renewable: bool = True


@dataclass
class VaultServer:
    """What it has, and what was asked of it. Tests change it at will."""

    address: str = ""
    mounts: dict[str, str] = field(default_factory=lambda: {"secret": "2"})
    """Mount → version of its KV engine."""
    other_mounts: dict[str, str] = field(default_factory=dict)
    """Mount → type of an engine that isn't KV."""
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """mount/path → fields."""
    deleted: set[str] = field(default_factory=set)
    lease_s: int = 0
    tokens: dict[str, Token] = field(default_factory=dict)
    role_id: str = "the-role"
    secret_id: str = "the-secret-id"
    service_token: str = "the-service-account"
    login_ttl_s: int = 3600
    mounts_may_be_asked: bool = True
    sealed: bool = False
    asked: list[str] = field(default_factory=list)
    """METHOD path, in order."""
    namespaces: list[str] = field(default_factory=list)
    logins: int = 0

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> Answer:
        self.asked.append(f"{method} {path}")
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        login = re.fullmatch(r"auth/([^/]+)/login", path)
        if method == "POST" and login:
            return self._log_in(login[1], body)
        if token not in self.tokens:
            return _DENIED
        match method, path:
            case "GET", "auth/token/lookup-self":
                known = self.tokens[token]
                return 200, {"data": {"ttl": known.ttl_s, "renewable": known.renewable}}
            case "POST", "auth/token/renew-self":
                return self._auth(token, self.tokens[token])
            case "GET", _ if path.startswith("sys/internal/ui/mounts/"):
                return self._mount(path.removeprefix("sys/internal/ui/mounts/"))
            case "GET", _:
                return self._read(path)
        return 405, {"errors": ["unsupported operation"]}

    def _log_in(self, kind: str, body: dict[str, Any]) -> Answer:
        given = {
            "approle": body.get("role_id") == self.role_id
            and body.get("secret_id") == self.secret_id,
            "kubernetes": body.get("role") == "penstock" and body.get("jwt") == self.service_token,
        }
        if not given.get(kind, False):
            return 400, {"errors": ["invalid role or secret ID"]}
        self.logins += 1
        name = f"token-{self.logins}"
        self.tokens[name] = Token(self.login_ttl_s)
        return self._auth(name, self.tokens[name])

    def _auth(self, name: str, token: Token) -> Answer:
        auth = {
            "client_token": name,
            "lease_duration": token.ttl_s,
            "renewable": token.renewable,
        }
        return 200, {"auth": auth}

    def _mount(self, path: str) -> Answer:
        if not self.mounts_may_be_asked:
            return _DENIED
        for mount, kind in self.other_mounts.items():
            if path.startswith(f"{mount}/"):
                return 200, {"data": {"path": f"{mount}/", "type": kind, "options": None}}
        for mount, version in self.mounts.items():
            if path.startswith(f"{mount}/"):
                options = {"version": version} if version == "2" else None
                return 200, {"data": {"path": f"{mount}/", "type": "kv", "options": options}}
        return _DENIED

    def _read(self, path: str) -> Answer:
        for mount, version in self.mounts.items():
            prefix = f"{mount}/data/" if version == "2" else f"{mount}/"
            key = f"{mount}/{path.removeprefix(prefix)}"
            if not path.startswith(prefix):
                continue
            if key in self.deleted:
                metadata = {"deletion_time": "2026-01-01T00:00:00Z", "destroyed": False}
                return 404, {"data": {"data": None, "metadata": metadata}}
            if key not in self.secrets:
                return _MISSING
            fields = self.secrets[key]
            data = {"data": fields, "metadata": {"version": 1}} if version == "2" else fields
            return 200, {"data": data, "lease_duration": self.lease_s}
        return _MISSING


@contextmanager
def serve_vault(tls: ssl.SSLContext | None = None) -> Iterator[VaultServer]:
    """Runs until the end of the block."""
    vault = VaultServer()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            vault.namespaces.append(self.headers.get("X-Vault-Namespace", ""))
            path = self.path.removeprefix("/v1/")
            status, answer = vault.answer(
                self.command, path, self.headers.get("X-Vault-Token", ""), body
            )
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _handle

        def log_message(self, format: str, *args: object) -> None:
            """Not into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    vault.address = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
