"""What access control costs a request, in process: the gateway's own calls on the way of a small gRPC request, with and
without it. Beside that, what it costs to find out anew whose a credential is."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from jwt.algorithms import get_default_algorithms
from rich.table import Table

from penstock.access.api_key_auth import ApiKeyAuthenticator
from penstock.access.assembly import Access
from penstock.access.authenticator import Authenticator
from penstock.access.credentials import CERTIFICATE, Credentials
from penstock.access.jwt_auth import JwtAuthenticator
from penstock.access.local_keys import FileKeys
from penstock.access.tenants import TenantStore
from penstock.certs.authority import issue, make_authority
from penstock.certs.request import make_request
from penstock.config import Settings
from penstock.gateway.forwarded_certificate import forwarded
from penstock.gateway.terms import TermsReader, from_now
from penstock.jwt_config import JwtIssuer
from penstock.secrets.source import SecretSource
from penstock.types import NO_TERMS, CallTerms
from penstock.verbs import Verb

Headers = list[tuple[bytes, bytes]]
Step = Callable[[Headers], object]

MODEL: Final = "identity"
ROWS, NBYTES = 1, 64
ISSUER: Final = "https://id.example.org"
TOGETHER: Final = 500
"""Requests whose headers are made beforehand: few enough to stay in the processor's cache."""

HEADERS: Final = (
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"user-agent", b"grpc-python/1.66.0 grpc-c/43.0.0 (linux; chttp2)"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
    (b"x-forwarded-proto", b"http"),
    (b"x-request-id", b"7f1c1c52-93f5-4b1c-8a0b-0c7d7d2c4a11"),
)
"""As Envoy passes them on."""
IDENTITY: Final = "spiffe://example.org/ns/ml/sa/team-a"

ALGORITHMS: Final[Mapping[str, Callable[[], Any]]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one thing."""

    name: str
    microseconds: float
    """Of CPU, each time: the median round. What other programs take of a core is not in it."""
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class AccessCosts:
    """All that was measured."""

    paths: Sequence[Cost]
    """The calls of a request's way, all together: the first with access control off."""
    steps: Sequence[Cost]
    """Each part of the way alone."""
    fresh: Sequence[Cost]
    """To find out whose a credential is that was not seen before."""

    @property
    def added_us(self) -> float:
        """What identity, permission and quota cost together, with an API key."""
        return self.paths[1].microseconds - self.paths[0].microseconds


def tables(costs: AccessCosts) -> Iterator[Table]:
    """For people."""
    named = {
        "a request's way": costs.paths,
        "steps of it": costs.steps,
        "a credential that was not seen before": costs.fresh,
    }
    for title, rows in named.items():
        table = Table("", "µs of CPU", "least", "most", title=title)
        for row in rows:
            figures = (f"{value:.2f}" for value in (row.microseconds, row.least, row.most))
            table.add_row(row.name, *figures)
        yield table


class _Bench:
    """A gateway's access control, with one tenant."""

    def __init__(self, folder: Path) -> None:
        self.settings = _settings(folder)
        self.keys = {name: make() for name, make in ALGORITHMS.items()}
        (folder / "keys.json").write_text(json.dumps({"keys": self._public_keys()}))
        with_tenants = TenantStore(folder / "tenants.db")
        try:
            with_tenants.create("team-a")
            with_tenants.set_limits("team-a", {"requests_per_s": 1e9, "in_flight": 1000})
            self.api_key = with_tenants.keys.create("team-a").text.encode()
        finally:
            with_tenants.close()
        self._secrets = SecretSource(self.settings.secrets)
        self.access = Access(self.settings, self._secrets)
        self.access.start()

    def close(self) -> None:
        """End all of it."""
        self.access.close()
        self._secrets.close()

    def token(self, algorithm: str, subject: str = "alice") -> bytes:
        """Of the issuer."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": "penstock",
            "sub": subject,
            "tenant": "team-a",
            "iat": now,
            "exp": now + 3600,
        }
        return jwt.encode(claims, self.keys[algorithm], algorithm, {"kid": algorithm}).encode()

    def _public_keys(self) -> list[dict[str, Any]]:
        found = []
        for name, key in self.keys.items():
            shown: Any = get_default_algorithms()[name].to_jwk(key.public_key(), as_dict=True)
            shown.pop("key_ops", None)
            found.append({**shown, "kid": name, "use": "sig", "alg": name})
        return found


def measure(requests: int, rounds: int) -> AccessCosts:
    """Each way `requests` times a round."""
    with tempfile.TemporaryDirectory(prefix="pl-") as folder, _bench(Path(folder)) as bench:
        return AccessCosts(
            paths=_costs(_paths(bench), requests, rounds),
            steps=_costs(_steps(bench), requests, rounds),
            fresh=_fresh(bench, max(requests // 100, 1), rounds),
        )


@contextmanager
def _bench(folder: Path) -> Iterator[_Bench]:
    bench = _Bench(folder)
    try:
        yield bench
    finally:
        bench.close()


def _settings(folder: Path) -> Settings:
    issuer = JwtIssuer(
        issuer=ISSUER,
        audience=("penstock",),
        jwks_file=folder / "keys.json",
        default_roles=("user",),
    )
    return Settings.model_validate(
        {
            "access": {
                "mode": "required",
                "tenants_file": folder / "tenants.db",
                "jwt": [issuer],
                "certificates": [{"uri": "spiffe://example.org/*", "tenant": "team-a"}],
            }
        }
    )


def _paths(bench: _Bench) -> dict[str, tuple[Step, Headers]]:
    """Name → the calls, and the headers of a request."""
    off, on = _way(TermsReader()), _way(TermsReader(guard=bench.access.guard))
    key = (b"authorization", b"Bearer " + bench.api_key)
    token = (b"authorization", b"Bearer " + bench.token("RS256"))
    certificate = (CERTIFICATE, _certificate())
    return {
        "access off": (off, [*HEADERS]),
        "API key": (on, [*HEADERS, key]),
        "JWT (RS256)": (on, [*HEADERS, token]),
        "client certificate": (on, [*HEADERS, certificate]),
        "API key and certificate": (on, [*HEADERS, certificate, key]),
        "API key, with a time-out": (on, [*HEADERS, (b"grpc-timeout", b"5S"), key]),
    }


def _certificate() -> bytes:
    """What a front tells the gateway of a client's certificate."""
    now = datetime.now(UTC)
    authority = make_authority("CA", now, 86_400, "example.org")
    request = make_request("client", "team-a", uris=[IDENTITY], trust_domain="example.org")
    return forwarded(issue(authority, request, now).certificate.public_bytes(Encoding.DER))


def _way(reader: TermsReader) -> Step:
    """What `grpc_asgi.py` and `inference.py` call for a request's terms, its permission, and its quota."""

    def way(headers: Headers) -> CallTerms:
        terms = reader.of_grpc(headers)
        began_ns = 0 if terms is NO_TERMS else time.monotonic_ns()
        if terms is not NO_TERMS:
            terms = from_now(terms, began_ns)
        session = terms.session
        if session is not None:
            session.check(Verb.INFER, MODEL)
        if terms.session is not None:
            lease = terms.session.admit(MODEL, ROWS, NBYTES)
            if lease is not None:
                lease.release()
        return terms

    return way


def _steps(bench: _Bench) -> dict[str, tuple[Step, Headers]]:
    off, on = TermsReader(), TermsReader(guard=bench.access.guard)
    headers = [*HEADERS, (b"authorization", b"Bearer " + bench.api_key)]
    session = on.of_grpc(headers).session
    assert session is not None

    def check(_: Headers) -> None:
        session.check(Verb.INFER, MODEL)

    def admit(_: Headers) -> None:
        lease = session.admit(MODEL, ROWS, NBYTES)
        if lease is not None:
            lease.release()

    return {
        "(nothing)": (lambda _: None, headers),
        "terms, access off": (off.of_grpc, headers),
        "terms and identity": (on.of_grpc, headers),
        "permission": (check, headers),
        "quota": (admit, headers),
    }


def _costs(ways: Mapping[str, tuple[Step, Headers]], requests: int, rounds: int) -> Sequence[Cost]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    # turn by turn: whatever else the machine does then befalls all of them
    for _ in range(rounds):
        for name, (step, headers) in ways.items():
            found[name].append(_timed(step, headers, requests))
    return [_cost(name, values) for name, values in found.items()]


def _timed(step: Step, headers: Headers, requests: int) -> float:
    """Microseconds a request. Each has headers of its own, as from a socket: their hashes are not known yet."""
    spent_ns = done = 0
    while done < requests:
        made = [_copied(headers) for _ in range(min(TOGETHER, requests - done))]
        gc.disable()
        try:
            began_ns = time.thread_time_ns()
            for each in made:
                step(each)
            spent_ns += time.thread_time_ns() - began_ns
        finally:
            gc.enable()
        done += len(made)
    return spent_ns / done / 1000


def _copied(headers: Headers) -> Headers:
    return [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in headers]


def _fresh(bench: _Bench, requests: int, rounds: int) -> Sequence[Cost]:
    """Whose a credential is, with nothing remembered."""
    store = TenantStore(bench.settings.access.tenants_path)
    api_keys = ApiKeyAuthenticator(store)
    tokens = JwtAuthenticator(bench.settings.access.jwt, _file_keys)
    tokens.start()
    try:
        ways: list[tuple[str, Authenticator, bytes]] = [("API key", api_keys, bench.api_key)]
        ways += [(f"JWT ({name})", tokens, bench.token(name)) for name in ALGORITHMS]
        return [_authenticated(*way, requests, rounds) for way in ways]
    finally:
        tokens.close()
        api_keys.close()
        store.close()


def _file_keys(issuer: JwtIssuer) -> FileKeys:
    assert issuer.jwks_file is not None
    return FileKeys(issuer, issuer.jwks_file)


def _authenticated(
    name: str, authenticator: Authenticator, credential: bytes, requests: int, rounds: int
) -> Cost:
    shown = Credentials(b"Bearer " + credential)
    authenticator.refresh(time.monotonic())
    values = []
    for _ in range(rounds):
        began_ns = time.thread_time_ns()
        for _ in range(requests):
            authenticator.authenticate(shown)
        values.append((time.thread_time_ns() - began_ns) / requests / 1000)
    return _cost(name, values)


def _cost(name: str, values: Sequence[float]) -> Cost:
    return Cost(name, median(values), min(values), max(values))
