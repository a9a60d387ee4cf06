"""What the CA makes holds for OpenSSL and `cryptography`'s own verifier, with the extensions that RFC 5280 asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from penstock.certs.authority import (
    Authority,
    certify,
    end_of,
    issue,
    make_authority,
    trust_domain_of,
)
from penstock.certs.inspection import due_at, inspect, shown, state_of
from penstock.certs.keys import key_from_pem, key_to_pem
from penstock.certs.request import KEY_TYPES, KeyType, make_request
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret

NOW = datetime(2026, 11, 28, 12, 0, 0, 500_000, UTC)
YEAR_S = 365 * 86_400
T = TypeVar("T", bound=x509.ExtensionType)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("Test CA", NOW, YEAR_S, "example.org")


def verify(
    leaf: x509.Certificate,
    roots: Sequence[x509.Certificate],
    between: Sequence[x509.Certificate] = (),
    at: datetime = NOW,
    dns: str = "models.example.org",
) -> None:
    builder = PolicyBuilder().store(Store(list(roots))).time(at.replace(tzinfo=None))
    builder.build_server_verifier(x509.DNSName(dns)).verify(leaf, list(between))


def extension(certificate: x509.Certificate, kind: type[T]) -> x509.Extension[T]:
    return certificate.extensions.get_extension_for_class(kind)


def test_the_root(authority: Authority) -> None:
    root = authority.certificate
    constraints = extension(root, x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 1)
    usage = extension(root, x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    subject_key = extension(root, x509.SubjectKeyIdentifier).value
    assert extension(root, x509.AuthorityKeyIdentifier).value.key_identifier == subject_key.digest
    assert root.issuer == root.subject
    assert root.not_valid_before_utc == NOW.replace(microsecond=0) - timedelta(hours=1)
    assert end_of(root) == NOW.replace(microsecond=0) + timedelta(seconds=YEAR_S)
    assert trust_domain_of(root) == "example.org"
    root.verify_directly_issued_by(root)


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_leaf(authority: Authority, kind: str) -> None:
    request = make_request(
        "server" if kind == "server" else "client",
        "models.example.org",
        ips=["10.0.0.7", "::1"],
        dns=["models.example.org"],
        trust_domain="example.org",
    )
    leaf = issue(authority, request, NOW).certificate
    constraints = extension(leaf, x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = extension(leaf, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    expected = {
        "server": ExtendedKeyUsageOID.SERVER_AUTH,
        "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [expected[kind]]
    root_key = extension(authority.certificate, x509.SubjectKeyIdentifier).value.digest
    issuer = extension(leaf, x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == root_key
    assert issuer.authority_cert_serial_number is None, "the successor has another one"
    info = inspect(leaf, kind, NOW, authority.certificate)
    assert info.names == (
        "DNS:models.example.org",
        "IP:10.0.0.7",
        "IP:::1",
        f"spiffe://example.org/{kind}/models.example.org",
    )
    assert info.by_current_ca
    assert info.state == "valid"


def test_serials_are_random_positive_and_fit_into_20_octets(authority: Authority) -> None:
    request = make_request("client", "x")
    serials = {issue(authority, request, NOW).certificate.serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 1 << 159 for serial in serials)


@pytest.mark.parametrize("key_type", KEY_TYPES)
@pytest.mark.parametrize("root_type", ["p256", "p384"])
def test_keys_of_all_kinds_verify(key_type: KeyType, root_type: KeyType) -> None:
    root = make_authority("CA", NOW, YEAR_S, key_type=root_type)
    request = make_request("server", "models.example.org", key_type=key_type)
    verify(issue(root, request, NOW).certificate, [root.certificate])


def test_it_verifies_for_its_names_and_time_alone(authority: Authority) -> None:
    request = make_request("server", "models.example.org", lifetime_s=100)
    leaf = issue(authority, request, NOW).certificate
    roots = [authority.certificate]
    start = NOW.replace(microsecond=0)
    verify(leaf, roots)
    verify(leaf, roots, at=start - timedelta(seconds=10))
    verify(leaf, roots, at=start + timedelta(seconds=100))
    with pytest.raises(VerificationError):
        verify(leaf, roots, at=start - timedelta(seconds=11))
    with pytest.raises(VerificationError):
        verify(leaf, roots, at=start + timedelta(seconds=101))
    with pytest.raises(VerificationError):
        verify(leaf, roots, dns="other.example.org")


def test_a_leaf_ends_no_later_than_its_root() -> None:
    root = make_authority("CA", NOW, 3600)
    leaf = issue(root, make_request("client", "x"), NOW + timedelta(seconds=1800)).certificate
    assert end_of(leaf) == end_of(root.certificate)


def test_an_expired_root_issues_nothing_and_says_what_to_do() -> None:
    root = make_authority("CA", NOW, 3600)
    with pytest.raises(ConfigError, match=r"the CA expired on 2026-11-28 13:00:00 UTC: .*--rotate"):
        issue(root, make_request("client", "x"), NOW + timedelta(hours=1))


def test_those_who_know_one_root_alone_trust_what_the_next_one_issues() -> None:
    first = make_authority("CA", NOW, YEAR_S, "example.org")
    second = certify(first, make_authority("CA", NOW, 2 * YEAR_S, "example.org"), NOW)
    third = certify(second, make_authority("CA", NOW, 2 * YEAR_S, "example.org"), NOW)
    request = make_request("server", "models.example.org")
    leaf = issue(second, request, NOW).certificate
    verify(leaf, [first.certificate], second.chain)
    verify(leaf, [second.certificate], second.chain)
    verify(leaf, [second.certificate])
    verify(leaf, [second.certificate, first.certificate], second.chain)
    with pytest.raises(VerificationError):
        verify(leaf, [first.certificate])
    with pytest.raises(VerificationError):
        verify(leaf, [third.certificate], second.chain)
    assert first.certificate.subject != second.certificate.subject
    (cross,) = second.chain
    assert extension(cross, x509.BasicConstraints).value.path_length == 0
    assert end_of(cross) == end_of(first.certificate)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_keys_are_read_again(key_type: KeyType) -> None:
    made = issue(make_authority("CA", NOW, YEAR_S), make_request("client", "x"), NOW).key
    passphrase = Secret(b"hunter2")
    plain, encrypted = key_to_pem(made), key_to_pem(made, passphrase)
    assert b"BEGIN PRIVATE KEY" in plain
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in encrypted
    for pem, secret in ((plain, None), (encrypted, passphrase)):
        read = key_from_pem(pem, "x.key", secret)
        assert read.private_numbers() == made.private_numbers()
    for pem, secret, expected in (
        (encrypted, None, "x.key: the key needs a passphrase"),
        (encrypted, Secret(b"planted-wrong"), "x.key: the passphrase is wrong"),
        (plain, passphrase, "x.key: the key is not encrypted"),
        (b"nothing", None, "x.key: it is no private key"),
    ):
        with pytest.raises(ConfigError, match=expected) as caught:
            key_from_pem(pem, "x.key", secret)
        assert "planted" not in str(caught.value)


def test_states() -> None:
    start, end = NOW, NOW + timedelta(seconds=300)
    assert due_at(start, end) == NOW + timedelta(seconds=200)
    at = [(-1, "not yet valid"), (0, "valid"), (199, "valid"), (200, "due"), (300, "due")]
    for seconds, state in [*at, (301, "expired")]:
        assert state_of(start, end, NOW + timedelta(seconds=seconds)) == state


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")]
)
def test_spans(seconds: int, text: str) -> None:
    assert shown(timedelta(seconds=seconds)) == text
