"""What a certificate may say, and what is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.certs.request import (
    MAX_LIFETIME_S,
    check_dns,
    check_ip,
    check_trust_domain,
    check_uri,
    make_request,
)
from penstock.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "dns", "ips"),
    [
        ("models.example.org", ("models.example.org",), ()),
        ("10.0.0.7", (), ("10.0.0.7",)),
        ("localhost", ("localhost",), ("127.0.0.1", "::1")),
        ("Upper", ("upper",), ()),
    ],
)
def test_a_server_is_found_by_its_name(
    name: str, dns: tuple[str, ...], ips: tuple[str, ...]
) -> None:
    request = make_request("server", name)
    assert (request.dns, request.ips, request.uris) == (dns, ips, ())
    assert request.lifetime_s == 30 * 86_400
    assert request.label == f"server/{name}"


def test_what_is_said_counts_alone_and_once() -> None:
    request = make_request("server", "front", dns=["A.b", "*.a.b", "a.b"], ips=["::0001", "::1"])
    assert request.dns == ("a.b", "*.a.b")
    assert request.ips == ("::1",)


def test_a_client_needs_no_host() -> None:
    request = make_request("client", "loader@ci")
    assert (request.dns, request.ips, request.uris) == ((), (), ())
    assert request.lifetime_s == 7 * 86_400


def test_a_trust_domain_gives_an_identity_unless_there_is_one() -> None:
    request = make_request("client", "loader", trust_domain="example.org")
    assert request.uris == ("spiffe://example.org/client/loader",)
    own = ["spiffe://example.org/team-a/loader"]
    assert make_request("client", "loader", uris=own, trust_domain="example.org").uris == tuple(own)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": ""}, "can't be a certificate's name"),
        ({"name": "../x"}, "can't be a certificate's name"),
        ({"name": "a/b"}, "can't be a certificate's name"),
        ({"name": "-x"}, "can't be a certificate's name"),
        ({"name": "x" * 65}, "can't be a certificate's name"),
        ({"name": "ü"}, "can't be a certificate's name"),
        ({"name": "x\n"}, "can't be a certificate's name"),
        ({"name": "a@b"}, "clients reach it by which name or address"),
        ({"name": "x", "lifetime_s": 0}, "a lifetime of 0 s is not possible: expected 1s to 825d"),
        ({"name": "x", "lifetime_s": MAX_LIFETIME_S + 1}, "expected 1s to 825d"),
        ({"name": "x", "lifetime_s": 900 * 86_400}, "a lifetime of 900 days is not possible"),
        (
            {"name": "x", "uris": ["spiffe://other/x"], "trust_domain": "here"},
            "is not of this CA's trust domain here",
        ),
        (
            {"name": "x", "uris": ["https://a/b"], "trust_domain": "here"},
            "in a trust domain a certificate has one URI",
        ),
    ],
)
def test_what_is_refused(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_request("server", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "a..b", "-a", "a-", "*", "*.", "a.*.b", "a b", "ü.org", "x" * 64, "1.2.3.4", "a\n", "a."],
)
def test_no_dns_names(text: str) -> None:
    with pytest.raises(ConfigError):
        check_dns(text)


@pytest.mark.parametrize("text", ["a", "my_service", "xn--bcher-kva.example", "*.example.org"])
def test_dns_names(text: str) -> None:
    assert check_dns(text) == text


@pytest.mark.parametrize("text", ["", "1.2.3", "::g", "fe80::1%eth0", "10.0.0.0/8", "x"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError):
        check_ip(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "spiffe:x",
        "spiffe://",
        "spiffe://td",
        "spiffe://td/",
        "spiffe://td/a//b",
        "spiffe://td/../b",
        "spiffe://TD/a",
        "spiffe://td/a?b",
        "spiffe://td:80/a",
        "spiffe://td/a b",
        "https://ü/",
    ],
)
def test_no_uris(text: str) -> None:
    with pytest.raises(ConfigError):
        check_uri(text)


@pytest.mark.parametrize("text", ["", "Example.org", "a b", "spiffe://x", "x/y"])
def test_no_trust_domains(text: str) -> None:
    with pytest.raises(ConfigError, match="is no trust domain"):
        check_trust_domain(text)


@given(st.text(max_size=80), st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_taken_whole_or_refused(name: str, dns: str, ip: str, uri: str) -> None:
    try:
        request = make_request("server", name, dns=[dns], ips=[ip], uris=[uri])
    except ConfigError:
        return
    for text in (request.name, *request.dns, *request.ips, *request.uris):
        assert text.isascii()
        assert text.isprintable()
