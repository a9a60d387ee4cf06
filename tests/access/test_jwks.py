"""Keys from a real server, over real sockets: when it works, when it is away, and when it means ill."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from jwt_issuer import (
    AUDIENCE,
    DISCOVERY_PATH,
    JWKS_PATH,
    SECRET,
    IssuerServer,
    key_of,
    key_set,
    serving,
)
from penstock.access.jwk_set import KeySet
from penstock.access.jwks import key_source
from penstock.access.key_source import KeySource
from penstock.access.local_keys import FileKeys, SecretKeys
from penstock.access.remote_keys import RemoteKeys
from penstock.errors import ConfigError
from penstock.jwt_config import JwtIssuer
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef
from self_signed import certificate_for
from supervised import eventually

REF = SecretRef.parse("env:NAME")
FIRST, SECOND = key_of("ES256", "one"), key_of("ES256", "two")


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _settings(**changes: Any) -> JwtIssuer:
    usual = {"issuer": "test", "audience": AUDIENCE, "default_roles": "user"}
    return JwtIssuer.model_validate({**usual, **changes})


def _ids(keys: KeySet) -> list[str | None]:
    return [key.key_id for key in keys.keys]


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    """Shows FIRST."""
    with serving(FIRST) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """At 0."""
    return Clock()


@pytest.fixture
def started(clock: Clock) -> Iterator[Callable[..., RemoteKeys]]:
    """`started(jwks_url=…)`: keys that are being fetched, by the test's clock."""
    sources: list[RemoteKeys] = []

    def start(**changes: Any) -> RemoteKeys:
        sources.append(RemoteKeys(_settings(**changes), clock))
        sources[-1].start()
        return sources[-1]

    yield start
    for source in sources:
        source.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "jwks"]


def _tried(source: RemoteKeys, times: int) -> None:
    eventually(lambda: source.reads.succeeded + source.reads.failed >= times, f"no {times} fetches")


def _failing(source: RemoteKeys) -> None:
    _tried(source, 1)
    assert source.reads.succeeded == 0
    assert source.is_pending


def test_keys_come_from_their_address(
    issuer: IssuerServer, started: Callable[..., RemoteKeys]
) -> None:
    """In the background: before, there are none."""
    source = started(jwks_url=issuer.jwks_url)
    eventually(lambda: not source.is_pending, "no keys")
    assert _ids(source.keys) == ["one"]
    assert source.version == 1
    assert issuer.asked == [JWKS_PATH]


def test_keys_come_by_discovery(issuer: IssuerServer, started: Callable[..., RemoteKeys]) -> None:
    """The issuer's own document says where they are."""
    source = started(issuer=issuer.url)
    eventually(lambda: not source.is_pending, "no keys")
    assert issuer.asked == [DISCOVERY_PATH, JWKS_PATH]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://somebody.else"},
        {"jwks_uri": "http://10.0.0.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": ["x"]},
        {"jwks_uri": None},
    ],
    ids=str,
)
def test_a_discovery_document_that_means_ill(
    issuer: IssuerServer, started: Callable[..., RemoteKeys], changes: dict[str, Any]
) -> None:
    """Sends nobody anywhere else."""
    found = {"issuer": issuer.url, "jwks_uri": issuer.jwks_url, **changes}
    issuer.pages[DISCOVERY_PATH] = (200, {}, json.dumps(found).encode())
    _failing(started(issuer=issuer.url))
    assert issuer.asked == [DISCOVERY_PATH]


def test_new_keys_by_the_interval(
    issuer: IssuerServer, started: Callable[..., RemoteKeys], clock: Clock
) -> None:
    """The version says that there are others; the same ones again are no change."""
    source = started(jwks_url=issuer.jwks_url, refresh_secs=300, refresh_min_secs=10)
    _tried(source, 1)
    clock.now = 10
    source.ask()
    _tried(source, 2)
    assert source.version == 1
    issuer.show(SECOND)
    clock.now = 20
    source.ask()
    eventually(lambda: source.version == 2, "not new")
    assert _ids(source.keys) == ["two"]


def test_who_asks_much_is_not_passed_on(
    issuer: IssuerServer, started: Callable[..., RemoteKeys], clock: Clock
) -> None:
    """A thousand unknown keys are one fetch."""
    source = started(jwks_url=issuer.jwks_url)
    _tried(source, 1)
    clock.now = 9.9
    for _ in range(1000):
        source.ask()
    clock.now = 10
    source.ask()
    _tried(source, 2)
    for _ in range(1000):
        source.ask()
    source.close()
    assert len(issuer.asked) == 2


def test_an_issuer_that_is_away_for_a_while(
    issuer: IssuerServer, started: Callable[..., RemoteKeys], clock: Clock
) -> None:
    """Its last keys go on for the stated time, and no longer; then it comes back."""
    source = started(jwks_url=issuer.jwks_url, keep_keys_secs=100)
    _tried(source, 1)
    issuer.show_status(503)
    clock.now = 99
    source.ask()
    _tried(source, 2)
    assert _ids(source.keys) == ["one"]
    clock.now = 120
    source.ask()
    eventually(lambda: source.is_pending, "stale keys are kept")
    assert source.version == 2
    issuer.show(FIRST)

    def is_back() -> bool:
        clock.now += 10
        source.ask()
        return not source.is_pending

    eventually(is_back, "no keys")
    assert source.version == 3


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (301, {"Location": "/elsewhere"}, key_set(FIRST)),
        (307, {"Location": "/elsewhere"}, key_set(FIRST)),
        (201, {}, key_set(FIRST)),
        (404, {}, key_set(FIRST)),
        (500, {}, key_set(FIRST)),
        (200, {"Content-Encoding": "gzip"}, key_set(FIRST)),
        (200, {}, b" " * 5000 + key_set(FIRST)),
        (200, {}, b"<html>"),
        (200, {}, b'{"keys": []}'),
        (200, {"Content-Length": "9"}, key_set(FIRST)),
        (200, {"Content-Length": "-1"}, b"{}"),
        (200, {"Transfer-Encoding": "chunked"}, b"zz\r\n{}"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_answers_that_are_none(
    issuer: IssuerServer,
    started: Callable[..., RemoteKeys],
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    """No redirect is followed, and too much is not read."""
    issuer.pages[JWKS_PATH] = (status, headers, body)
    issuer.pages["/elsewhere"] = (200, {}, key_set(FIRST))
    _failing(started(jwks_url=issuer.jwks_url, max_jwks_bytes=4096))
    assert issuer.asked == [JWKS_PATH]


@pytest.mark.parametrize("part", ["nothing", "headers", "body"])
def test_a_server_that_drips(
    issuer: IssuerServer, started: Callable[..., RemoteKeys], part: str
) -> None:
    """Byte by byte, each in time: the whole takes too long all the same."""
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"
        try:
            handler.wfile.write({"nothing": b"", "headers": head, "body": head + b"\r\n"}[part])
            while not ended.wait(0.02):
                if part != "nothing":
                    handler.wfile.write(b"a")
        except OSError:
            pass
        return False

    issuer.before = drip
    try:
        source = started(jwks_url=issuer.jwks_url, fetch_timeout_secs=0.3)
        _failing(source)
    finally:
        ended.set()


def test_closing_breaks_a_fetch_off(
    issuer: IssuerServer, started: Callable[..., RemoteKeys]
) -> None:
    """Nobody waits for the time-out."""
    arrived, ended = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> bool:
        arrived.set()
        ended.wait(30)
        return False

    issuer.before = hang
    source = started(jwks_url=issuer.jwks_url, fetch_timeout_secs=60)
    try:
        assert arrived.wait(60)
        source.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "jwks"]
    finally:
        ended.set()


def test_nobody_listens(started: Callable[..., RemoteKeys]) -> None:
    """No keys, and a line in the log."""
    with serving(FIRST) as gone:
        url = gone.jwks_url
    _failing(started(jwks_url=url))


def test_https_by_a_certificate_of_ones_own(
    tmp_path: Path, started: Callable[..., RemoteKeys]
) -> None:
    """Who may vouch for the issuer's server is said by `ca_file`; others may not."""
    good, other = (certificate_for("localhost", tmp_path / name) for name in ("good", "other"))
    with serving(FIRST, certificate=good) as issuer:
        source = started(jwks_url=issuer.jwks_url, ca_file=good)
        eventually(lambda: not source.is_pending, "no keys")
        _failing(started(jwks_url=issuer.jwks_url, ca_file=other))
        _failing(started(jwks_url=issuer.jwks_url))
        # the name counts too
        _failing(started(jwks_url=issuer.jwks_url.replace("localhost", "127.0.0.1"), ca_file=good))


def test_a_ca_file_that_is_not_there(tmp_path: Path) -> None:
    """Stops the start."""
    source = RemoteKeys(_settings(jwks_url="https://localhost/", ca_file=tmp_path / "none"))
    with pytest.raises(
        ConfigError,
        match=r"^access\.jwt \(issuer '.*'\) ca_file: .*none: can't be read as certificates",
    ):
        source.start()


def _file(path: Path, *keys: Any) -> FileKeys:
    path.write_bytes(key_set(*keys))
    source = FileKeys(_settings(jwks_file=path), path)
    source.start()
    return source


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Also when it is replaced by one of the same size."""
    path = tmp_path / "keys.json"
    source = _file(path, FIRST)
    source.refresh()
    assert (_ids(source.keys), source.version) == (["one"], 0)
    (tmp_path / "new").write_bytes(key_set(SECOND))
    os.replace(tmp_path / "new", path)
    source.refresh()
    assert (_ids(source.keys), source.version) == (["two"], 1)


@pytest.mark.parametrize("content", [b"", b"{", b" " * 300_000, None], ids=lambda c: str(c)[:9])
def test_a_broken_file_changes_nothing(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The keys before go on, and the log says so once."""
    path = tmp_path / "keys.json"
    source = _file(path, FIRST)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    source.refresh()
    source.refresh()
    assert _ids(source.keys) == ["one"]
    assert len(caplog.records) == 1
    assert "those before go on" in caplog.text
    path.write_bytes(key_set(SECOND))
    source.refresh()
    assert _ids(source.keys) == ["two"]


def test_a_file_that_was_never_good(tmp_path: Path) -> None:
    """Stops the start."""
    for content in (None, b"{}", b"-----BEGIN"):
        if content is not None:
            (tmp_path / "keys.json").write_bytes(content)
        source = FileKeys(_settings(jwks_file="x"), tmp_path / "keys.json")
        where = r"^access\.jwt \(issuer '.*'\) jwks_file: .*keys\.json: no keys: "
        with pytest.raises(ConfigError, match=where) as raised:
            source.start()
    assert "no JSON Web Key Set, which is a JSON object: Expecting value: line 1" in str(
        raised.value
    )


def test_a_secret_that_changes(caplog: pytest.LogCaptureFixture) -> None:
    """The store says what it is now. One that is too short, or away, changes nothing."""
    now: list[bytes | ConfigError] = [SECRET]

    def read(ref: SecretRef) -> Secret:
        assert ref == REF
        if isinstance(now[0], ConfigError):
            raise now[0]
        return Secret(now[0])

    source = SecretKeys(_settings(secret="env:NAME"), REF, read)
    source.start()
    assert source.version == 0
    now[0] = SECRET[::-1]
    source.refresh()
    assert source.version == 1
    kept = source.keys
    for bad in (b"short", ConfigError("away")):
        now[0] = bad
        source.refresh()
        source.refresh()
        assert source.keys is kept
    assert len(caplog.records) == 2
    assert SECRET.decode() not in caplog.text
    now[0] = b"short"
    with pytest.raises(ConfigError, match="env:NAME: a secret of 5 bytes"):
        SecretKeys(_settings(secret="env:NAME"), REF, read).start()


def test_the_configuration_says_where_keys_come_from(tmp_path: Path) -> None:
    """One of three places."""

    def read(ref: SecretRef) -> Secret:
        return Secret(SECRET)

    def kind(**changes: Any) -> type[KeySource]:
        return type(key_source(_settings(**changes), read))

    assert kind(secret="env:NAME") is SecretKeys
    assert kind(jwks_file=tmp_path) is FileKeys
    assert kind(jwks_url="https://id.example.org") is RemoteKeys
    assert kind(issuer="https://id.example.org") is RemoteKeys
