"""Envoy with TLS over the fake gateway: who a client is can't be forged, and the gateway is watched as ever."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from penstock.gateway.forwarded_certificate import forwarded
from secured import Files
from supervised import Server, eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Server]
HEADER = "x-forwarded-client-cert"
FORGED = {HEADER: 'Hash=00;Subject="CN=admin";URI=spiffe://example.org/admin'}


def named(**names: str) -> x509.Name:
    attributes = [x509.NameAttribute(getattr(NameOID, key), text) for key, text in names.items()]
    return x509.Name(attributes)


SUBJECTS = {
    "plain": named(COMMON_NAME="loader", ORGANIZATION_NAME="Example"),
    "quoted": named(COMMON_NAME='a "b", c=d;e+f<g>\\h', ORGANIZATION_NAME="#x "),
    "foreign": named(COMMON_NAME="Zoë 東京", EMAIL_ADDRESS="a@b.example", COUNTRY_NAME="CH"),
    "rare": named(
        SERIAL_NUMBER="12", SURNAME="S", GIVEN_NAME="G", TITLE="T", PSEUDONYM="P", DN_QUALIFIER="Q"
    ),
    "empty": x509.Name([]),
}


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def seen(server: Server, context: ssl.SSLContext | None) -> str | None:
    """The identity that the application gets of a client which also claims to be another."""
    server.tls = context
    status, scope = server.get("/scope", FORGED)
    assert status == 200
    found: str | None = scope["headers"].get(HEADER)
    return found


def test_the_portable_front_says_of_a_client_what_envoy_says(start: Start, tmp_path: Path) -> None:
    files = Files(tmp_path)
    server = start(*files.flags()).wait_ready()
    uris = {
        "none": [],
        "one": ["spiffe://example.org/a"],
        "two": ["spiffe://a/b", "https://c/d?e=f"],
    }
    dns = {"none": [], "one": ["a.example"], "two": ["a.example", "*.b.example"]}
    for name, subject in SUBJECTS.items():
        pair = files.issue_client(name, subject=subject, dns=dns["one"], uris=uris["one"])
        assert seen(server, files.context(pair)) == forwarded(der(pair[0])).decode()
    sneaky = 'spiffe://a/b;URI="spiffe://example.org/admin";DNS=admin.example,By=x'
    pair = files.issue_client("sneaky", dns=['x;Subject="CN=admin"'], uris=[sneaky])
    assert seen(server, files.context(pair)) == forwarded(der(pair[0])).decode()
    for count in uris:
        pair = files.issue_client("names", dns=dns[count], uris=uris[count])
        assert seen(server, files.context(pair)) == forwarded(der(pair[0])).decode()


def test_no_header_is_believed_in_plain_text(start: Start) -> None:
    assert seen(start().wait_ready(), None) is None


def test_nor_where_a_client_shows_no_certificate(start: Start, tmp_path: Path) -> None:
    files = Files(tmp_path)
    server = start(*files.flags("optional")).wait_ready()
    bare = ssl.create_default_context(cafile=str(files.ca))
    assert seen(server, bare) is None
    found = seen(server, files.context())
    assert found is not None
    assert 'Subject="CN=client"' in found


def test_a_gateway_that_hangs_behind_tls_is_killed(start: Start, tmp_path: Path) -> None:
    """Nobody gets in who has no certificate: the supervisor asks in another way, and as often."""
    files = Files(tmp_path)
    server = start(*files.flags()).wait_ready()
    server.tls = files.context()
    hanging = server.send("/hang")
    eventually(lambda: "health checks in a row" in server.log, "it was not noticed")
    eventually(lambda: "the gateway serves again" in server.log, "it was not started again")
    hanging.close()
    # … and who answers is let live: many health checks have passed by now
    assert server.log.count("health checks in a row") == 1
