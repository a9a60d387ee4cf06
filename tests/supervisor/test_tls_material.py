"""Certificates, keys and CAs as they are read: what is good, and what each bad one is called."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certificates import DAY, Authority, Pair
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.supervisor.tls_material import MAX_FILE_BYTES, read_material
from penstock.tls_config import TlsSettings

CA = Authority()
OTHER_CA = Authority("Other CA")
GOOD = CA.issue()


def settings(folder: Path, pair: Pair = GOOD, client_ca: bytes = b"") -> TlsSettings:
    certificate, key = pair.write(folder, "server")
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(client_ca)
    return TlsSettings(
        cert_file=certificate,
        key_file=key,
        client_ca_file=ca_file if client_ca else None,
        client_auth="require" if client_ca else "none",
    )


def refusal(found: TlsSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        read_material(found, datetime.now(UTC))
    return str(caught.value)


def test_a_good_pair(tmp_path: Path) -> None:
    material = read_material(settings(tmp_path, client_ca=CA.certificate), datetime.now(UTC))
    assert material.subject == "CN=localhost"
    assert material.serial == f"{GOOD.serial:x}"
    assert material.certificates == GOOD.certificate.decode()
    assert material.client_ca == CA.certificate.decode()
    ends_at = x509.load_pem_x509_certificate(GOOD.certificate).not_valid_after_utc
    assert material.expires_at == ends_at.timestamp()
    assert material.client_ca_expires_at > material.expires_at


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        *(ec.generate_private_key(c) for c in (ec.SECP384R1(),)),
    ],
    ids=["rsa", "p-384"],
)
def test_kinds_of_keys(tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    assert read_material(settings(tmp_path, CA.issue(key=key)), datetime.now(UTC))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (rsa.generate_private_key(65537, 1024), "RSA key of 1024 bits: expected 2048 or more"),
        (ec.generate_private_key(ec.SECP256K1()), "key of another kind: expected RSA, P-256"),
    ],
    ids=["short", "curve"],
)
def test_keys_that_no_front_takes(
    tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, words: str
) -> None:
    said = refusal(settings(tmp_path, CA.issue(key=key)))
    assert said.startswith(f"tls.cert_file: {tmp_path}/server.pem has an ") or words in said
    assert words in said


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    mixed = Pair(GOOD.certificate, CA.issue().key, 0)
    assert refusal(settings(tmp_path, mixed)) == (
        f"tls.key_file: {tmp_path}/server.key is not the key of the certificate in"
        f" {tmp_path}/server.pem (CN=localhost): expected its private key"
    )


def test_ed25519_is_not_taken(tmp_path: Path) -> None:
    mixed = Pair(GOOD.certificate, CA.issue(key=rsa.generate_private_key(65537, 2048)).key, 0)
    found = settings(tmp_path, mixed)
    assert found.key_file is not None
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ed25519.Ed25519PrivateKey.generate()
    found.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "server.key has a key of another kind" in refusal(found)


def test_dates(tmp_path: Path) -> None:
    over = CA.issue(after=timedelta(days=-3))
    assert "(CN=localhost) that expired at 2" in refusal(settings(tmp_path, over))
    early = CA.issue(after=DAY)
    assert "(CN=localhost) that holds only from 2" in refusal(settings(tmp_path, early))


def test_what_is_no_pem(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.cert_file is not None
    found.cert_file.write_bytes(b"not a certificate")
    assert refusal(found) == (
        f"tls.cert_file: {tmp_path}/server.pem has no certificate: expected PEM,"
        " -----BEGIN CERTIFICATE-----"
    )
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    found.cert_file.write_bytes(begin + b"AAAA" + end)
    assert "server.pem has a certificate that can't be read" in refusal(found)
    found.cert_file.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    assert "is too large" in refusal(found)
    found.cert_file.unlink()
    assert refusal(found) == (
        f"tls.cert_file: {tmp_path}/server.pem can't be read: No such file or directory"
    )


@pytest.mark.parametrize("kept", [0.1, 0.4, 0.9])
def test_files_that_are_cut_off(tmp_path: Path, kept: float) -> None:
    """As they are while somebody writes them."""
    found = settings(tmp_path, client_ca=CA.certificate + OTHER_CA.certificate)
    for path in found.files:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept)])
        said = refusal(found)
        assert str(path) in said
        path.write_bytes(whole)
    assert read_material(found, datetime.now(UTC))


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    found = settings(tmp_path, CA.issue(passphrase=b"hush"))
    said = refusal(found)
    assert "server.key has a key with a passphrase: expected tls.key_passphrase" in said
    material = read_material(found, datetime.now(UTC), Secret(b"hush"))
    assert "BEGIN PRIVATE KEY" in material.key
    with pytest.raises(
        ConfigError, match=r"expected PEM, and the passphrase of tls\.key_pass"
    ) as e:
        read_material(found, datetime.now(UTC), Secret(b"loud"))
    assert "loud" not in str(e.value)


def test_a_passphrase_that_a_key_does_not_need(tmp_path: Path) -> None:
    """A new key may come without."""
    assert read_material(settings(tmp_path), datetime.now(UTC), Secret(b"hush"))


def test_keys_are_not_repeated_in_errors(tmp_path: Path) -> None:
    broken = GOOD.key.replace(b"M", b"N", 3)
    said = refusal(settings(tmp_path, Pair(GOOD.certificate, broken, 0)))
    assert said.endswith("server.key has no key that can be read: expected PEM")


def test_cas_of_clients(tmp_path: Path) -> None:
    assert "(CN=localhost) that is no CA's" in refusal(
        settings(tmp_path, client_ca=GOOD.certificate)
    )
    found = settings(tmp_path, client_ca=CA.certificate + OTHER_CA.certificate)
    assert read_material(found, datetime.now(UTC)).client_ca.count("BEGIN") == 2
    with pytest.raises(ConfigError, match=r"ca\.pem has a certificate \(CN=Test CA\) that expired"):
        # the server's own must hold then
        later = settings(tmp_path, CA.issue(lasts=1000 * DAY), CA.certificate)
        read_material(later, datetime.now(UTC) + 500 * DAY)


def test_what_else_is_in_a_file_is_left_out(tmp_path: Path) -> None:
    """The key in the file of the certificate must not get into that of certificates."""
    both = Pair(b"a comment\n" + GOOD.certificate + GOOD.key, GOOD.key, GOOD.serial)
    assert "PRIVATE" not in read_material(settings(tmp_path, both), datetime.now(UTC)).certificates


def _flipped(pem: bytes, at: int, mask: int) -> bytes:
    der = bytearray(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    der[at] ^= mask
    return ssl.DER_cert_to_PEM_cert(bytes(der)).encode()


@pytest.mark.parametrize("whose", ["server", "ca"])
def test_any_byte_that_is_another_is_no_other_error(tmp_path: Path, whose: str) -> None:
    """Such as one that makes it of an unknown version, or a name that is none: the file is refused by its name."""
    pem = GOOD.certificate if whose == "server" else CA.certificate
    length = len(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    refused = 0
    for at in range(length):
        bad = _flipped(pem, at, 0x04)
        found = settings(
            tmp_path,
            Pair(bad, GOOD.key, 0) if whose == "server" else GOOD,
            CA.certificate if whose == "server" else bad,
        )
        try:
            read_material(found, datetime.now(UTC))
        except ConfigError:
            refused += 1
    assert refused > length / 4


def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.key_file is not None
    found.key_file.unlink()
    os.mkfifo(found.key_file)
    assert refusal(found) == f"tls.key_file: {found.key_file} is no ordinary file"
    found.key_file.unlink()
    found.key_file.mkdir()
    assert refusal(found) == f"tls.key_file: {found.key_file} can't be read: Is a directory"
