"""Certificates that may have signed, and those that may not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from penstock.artifacts_config import ArtifactsSettings, TrustRule
from penstock.errors import CertificateExpired, ConfigError, SignatureInvalid, Untrusted, WrongKey
from penstock.trust.signers import check_rules, load_certificates, load_public_key
from trusted_models import NOW, Authority, Workshop, package, write, write_private

EVERYBODY = ("*",)


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    authority = Authority()
    authority.write(tmp_path / "root.pem")
    return authority


def rule(workshop: Workshop, signers: tuple[str, ...] = EVERYBODY) -> TrustRule:
    path = workshop.folder / "root.pem"
    return workshop.rule(certificate_authorities=(path,), signers=signers)


def sign(workshop: Workshop, issuer: Authority, *above: Authority, **options: Any) -> None:
    workshop.key, certificate = issuer.issue(**options)
    workshop.sign(chain=[certificate, *(a.certificate for a in above)])


def refused(workshop: Workshop, kind: type[Untrusted], *rules: TrustRule) -> str:
    with pytest.raises(Untrusted) as raised:
        workshop.stage(1, *(rules or (rule(workshop),)))
    assert type(raised.value) is kind, raised.value
    return str(raised.value)


@pytest.mark.parametrize("name", ["spiffe://example.org/*", "CN=signer", "*"])
def test_the_signer_is_named(workshop: Workshop, root: Authority, name: str) -> None:
    sign(workshop, root)
    staged = workshop.stage(1, rule(workshop, (name,)))
    assert staged is not None
    assert staged.verified.signer in ("spiffe://example.org/release", "CN=signer")


def test_another_name(workshop: Workshop, root: Authority) -> None:
    sign(workshop, root)
    assert "spiffe://example.org/release" in refused(
        workshop, WrongKey, rule(workshop, ("spiffe://example.org/admin",))
    )


def test_by_way_of_another_authority(workshop: Workshop, root: Authority) -> None:
    between = Authority("between", root, path_length=0)
    below = Authority("below", between)
    sign(workshop, between, between)
    staged = workshop.stage(1, rule(workshop))
    assert staged is not None
    staged.close()
    sign(workshop, between)
    refused(workshop, WrongKey)
    # the one between may certify signers only
    sign(workshop, below, below, between)
    refused(workshop, WrongKey)


def test_another_authority_of_the_same_name(workshop: Workshop, root: Authority) -> None:
    imposter = Authority()
    sign(workshop, imposter, imposter)
    refused(workshop, WrongKey)


def test_a_signer_is_no_authority(workshop: Workshop, root: Authority) -> None:
    imposter = Authority("imposter")
    imposter.key, imposter.certificate = root.issue("imposter")
    sign(workshop, imposter, imposter)
    refused(workshop, WrongKey)


def test_a_certificate_is_good_for_its_time(workshop: Workshop, root: Authority) -> None:
    sign(workshop, root, days=(-1, 1))
    for days in (-2, 2):
        workshop.now = NOW + timedelta(days=days)
        assert "is valid from" in refused(workshop, CertificateExpired)
    workshop.now = NOW
    assert workshop.stage(1, rule(workshop)) is not None


def test_so_is_that_of_the_authority(workshop: Workshop, root: Authority) -> None:
    sign(workshop, root, days=(-1, 100))
    workshop.now = NOW + timedelta(days=50)
    assert "CN=root" in refused(workshop, CertificateExpired)


def test_a_certificate_for_something_else(workshop: Workshop, root: Authority) -> None:
    sign(workshop, root, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))
    assert "sign code" in refused(workshop, WrongKey)


def test_a_critical_extension_that_is_not_known(workshop: Workshop, root: Authority) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    sign(workshop, root, critical=unknown)
    assert "1.2.3.4" in refused(workshop, WrongKey)


def test_another_key_than_that_of_the_certificate(workshop: Workshop, root: Authority) -> None:
    _, certificate = root.issue()
    workshop.sign(chain=[certificate])
    refused(workshop, SignatureInvalid)


def test_keys_and_certificates_are_not_taken_for_each_other(
    workshop: Workshop, root: Authority
) -> None:
    workshop.sign()
    assert "trusts certificates only" in refused(workshop, WrongKey)
    sign(workshop, root)
    assert "trusts bare keys only" in refused(workshop, WrongKey, workshop.rule())


def test_the_package_signs_with_certificates_and_verifies_them(
    workshop: Workshop, root: Authority
) -> None:
    key, certificate = root.issue()
    leaf = write(workshop.folder / "leaf.pem", certificate.public_bytes(serialization.Encoding.PEM))
    private = write_private(workshop.folder / "leaf.key", key)
    workshop.key = key
    workshop.sign(chain=[certificate])
    signature = ("--signature", workshop.model / "1" / "model.sig")
    chain = ("--certificate_chain", workshop.folder / "root.pem")
    package("verify", "certificate", workshop.model, *signature, *chain)
    keys = ("--private_key", private, "--signing_certificate", leaf)
    package("sign", "certificate", workshop.model, *keys, *chain, *signature)
    assert workshop.stage(1, rule(workshop)) is not None


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nAA==\n"])
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "file.pem", content)
    for load in (load_public_key, load_certificates):
        with pytest.raises(ConfigError, match=r"file\.pem: no "):
            load(path)
    path.unlink()
    with pytest.raises(ConfigError, match="can't be read"):
        load_public_key(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "expected public_keys or certificate_authorities"),
        ({"certificate_authorities": ("a.pem",)}, "expected signers"),
    ],
)
def test_rules_that_say_too_little(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrustRule(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"public_keys": ("/nope.pem",)},
        {"certificate_authorities": ("/nope.pem",), "signers": ("*",)},
    ],
)
def test_the_setting_of_a_file_that_is_not_there_is_named(fields: dict[str, Any]) -> None:
    rules = (TrustRule(require="none"), TrustRule.model_validate(fields))
    where = rf"^artifacts\.trust\.1\.{next(iter(fields))}: /nope\.pem: can't be read: No such file"
    with pytest.raises(ConfigError, match=where):
        check_rules(ArtifactsSettings(trust=rules))
