"""Client certificates → principals."""

from __future__ import annotations

import ssl
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certificates import Authority
from penstock.access.certificate_auth import CertificateAuthenticator, names_in
from penstock.access.certificate_names import CertificateNames, names_of
from penstock.access.credentials import Credentials
from penstock.access_config import CertificateIdentity
from penstock.gateway.forwarded_certificate import forwarded_pem

LOADER = x509.Name(
    [
        x509.NameAttribute(NameOID.COMMON_NAME, "loader"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'A "quoted"; x=y'),
    ]
)
SUBJECT = r"O=A \"quoted\"\; x=y,CN=loader"
SPIFFE = forwarded_pem(
    Authority()
    .issue(
        subject=LOADER,
        uris=["spiffe://example.org/team-a/loader"],
        dns=["a.example.org", "b.example.org"],
    )
    .certificate
)


def test_names() -> None:
    assert names_in(SPIFFE) == CertificateNames(
        SUBJECT, ("spiffe://example.org/team-a/loader",), ("a.example.org", "b.example.org")
    )


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ({"uri": "spiffe://example.org/team-a/*"}, "cert:spiffe://example.org/team-a/loader"),
        ({"dns": "b.example.org"}, "cert:b.example.org"),
        ({"subject": "O=A *,CN=loader"}, f"cert:{SUBJECT}"),
        ({"uri": "spiffe://example.org/team-b/*"}, None),
        ({"dns": "spiffe://*"}, None),
        ({"subject": "loader"}, None),
    ],
)
def test_identity(identity: dict[str, str], expected: str | None) -> None:
    known = CertificateIdentity(tenant="a", roles=("user",), **identity)
    found = CertificateAuthenticator([known]).authenticate(Credentials(certificate=SPIFFE))
    assert (found and found.id) == expected
    assert found is None or (found.tenant, found.roles, found.kind) == (
        "a",
        ("user",),
        "certificate",
    )


def test_names_that_look_like_others_are_only_names() -> None:
    """A CA may let clients choose a part of a name. Envoy puts it into its text as it is."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loader,O=Example")])
    sneaky = "spiffe://example.org/team-b/x;URI=spiffe://example.org/team-a/loader"
    pair = Authority().issue(subject=subject, uris=[sneaky], dns=['a;Subject="CN=boss"'])
    text = forwarded_pem(pair.certificate)
    assert b";URI=spiffe://example.org/team-a/loader;" in text
    assert names_in(text) == CertificateNames(
        r"CN=loader\,O=Example", (sneaky,), ('a;Subject="CN=boss"',)
    )


def test_the_first_that_fits_holds() -> None:
    first = CertificateIdentity(dns="*.example.org", tenant="first")
    second = CertificateIdentity(uri="spiffe://*", tenant="second")
    shown = Credentials(certificate=SPIFFE)
    for identities, tenant in (([first, second], "first"), ([second, first], "second")):
        found = CertificateAuthenticator(identities).authenticate(shown)
        assert found is not None
        assert found.tenant == tenant


def test_no_certificate_is_nobodys() -> None:
    everybody = CertificateIdentity(subject="*", tenant="a")
    assert CertificateAuthenticator([everybody]).authenticate(Credentials()) is None


@given(st.text(st.characters(codec="latin-1"), max_size=40))
def test_text_without_a_certificate_is_nobodys(text: str) -> None:
    assert names_in(text.replace("Cert=", "").encode("latin-1")) is None


@pytest.mark.parametrize("name", [b"Subject", b"URI", b"DNS"])
def test_what_stands_beside_the_certificate_is_not_looked_at(name: bytes) -> None:
    """Whatever of a name comes after it, another certificate too."""
    other = forwarded_pem(Authority().issue(uris=["spiffe://example.org/boss"]).certificate)
    assert names_in(SPIFFE + b";" + name + b'="CN=boss";' + other) == names_in(SPIFFE)


def _changed(pem: bytes, old: bytes, new: bytes) -> bytes:
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    assert old in der
    return ssl.DER_cert_to_PEM_cert(der.replace(old, new)).encode()


def test_names_with_control_characters_are_none() -> None:
    """For who ends at NUL it is a name of somebody else."""
    pair = Authority().issue(dns=["evil.test\0.a.example"], uris=["spiffe://b/\nspiffe://a/x"])
    assert names_in(forwarded_pem(pair.certificate)) == CertificateNames("CN=localhost", (), ())


def test_names_that_can_not_be_read_are_none() -> None:
    """TLS libraries take certificates that the parser of names doesn't, such as of CAs that are sloppy with types."""
    pair = Authority().issue("my_name", uris=["spiffe://a/x"])
    no_subject = _changed(pair.certificate, b"my_name", b"my\xffname")
    found = names_in(forwarded_pem(no_subject))
    assert found == CertificateNames("", ("spiffe://a/x",), ("localhost",))
    no_text = _changed(pair.certificate, b"spiffe://a/x", b"spiffe://a/\xff")
    assert names_in(forwarded_pem(no_text)) == CertificateNames("CN=my_name", (), ())
    known = CertificateIdentity(tenant="a", roles=("user",), subject="*")
    shown = Credentials(certificate=forwarded_pem(no_subject))
    assert CertificateAuthenticator([known]).authenticate(shown) is None
    for old, new in (
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),
        # in a PrintableString there is no `_`
        (b"\x0c\x07my_name", b"\x13\x07my_name"),
    ):
        unreadable = _changed(pair.certificate, old, new)
        assert forwarded_pem(unreadable) == b""
        text = f'Hash=ab;Cert="{quote(unreadable.decode(), safe="")}"'.encode()
        shown = Credentials(certificate=text)
        assert CertificateAuthenticator([known]).authenticate(shown) is None


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://a/team-a/x", "spiffe://a/team-b/x"],
        ["spiffe://a/team-a/x", "https://elsewhere.example"],
        ["spiffe://a/team-a/../team-b/x"],
        ["spiffe://a/team-a/./x"],
        ["spiffe://a/team-a/.."],
    ],
)
def test_uris_that_no_spiffe_identity_has_are_none(uris: list[str]) -> None:
    pair = Authority().issue(uris=uris)
    assert names_of(x509.load_pem_x509_certificate(pair.certificate)).identity == ()


@pytest.mark.parametrize("uri", ["spiffe://a/team-a/x", "spiffe://a/team-a/.x", "spiffe://a/b..c"])
def test_a_uri_that_is_one(uri: str) -> None:
    pair = Authority().issue(uris=[uri])
    assert names_of(x509.load_pem_x509_certificate(pair.certificate)).identity == (uri,)
