"""The CA's folder: who may read it, what is never overwritten, and its rotation."""

from __future__ import annotations

import os
import shutil
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock.certs.folder import CertsFolder
from penstock.certs.inspection import from_pem
from penstock.certs.keys import key_from_pem, same_key
from penstock.certs.request import make_request
from penstock.errors import AlreadyExists, ConfigError, NotFound, Unavailable
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
YEAR_S = 365 * 86_400
DAY = timedelta(days=1)
SERVER = make_request("server", "localhost")
CLIENT = make_request("client", "loader")


def nobody(ref: SecretRef) -> Secret:
    raise AssertionError(f"{ref} was asked for")


@pytest.fixture
def certs(tmp_path: Path) -> CertsFolder:
    folder = CertsFolder(tmp_path / "deep" / "certs", nobody)
    folder.init("CA", NOW, YEAR_S)
    return folder


def pem(path: Path) -> list[str]:
    return [f"{c.serial_number:x}" for c in from_pem(path.read_bytes(), str(path))]


def test_only_its_owner_may_enter_and_read_keys(certs: CertsFolder) -> None:
    certs.issue(SERVER, NOW)
    folders = [certs.path.parent, certs.path, *(p for p in certs.path.rglob("*") if p.is_dir())]
    assert {oct(folder.stat().st_mode & 0o777) for folder in folders} == {"0o700"}
    keys = [path for path in certs.path.rglob("*.key") if not path.is_symlink()]
    assert len(keys) == 2
    assert {oct(path.stat().st_mode & 0o777) for path in keys} == {"0o600"}


def test_umask_makes_no_difference(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        certs = CertsFolder(tmp_path / "certs", nobody)
        certs.init("CA", NOW, YEAR_S)
        certs.issue(SERVER, NOW)
    finally:
        os.umask(old)
    test = [path for path in certs.path.rglob("*") if not path.is_symlink()]
    assert all(path.stat().st_mode & 0o022 == 0 for path in test)
    assert all(path.stat().st_mode & 0o077 == 0 for path in test if path.suffix == ".key")


def test_nothing_is_overwritten_by_accident(certs: CertsFolder) -> None:
    before = pem(certs.bundle)
    with pytest.raises(AlreadyExists, match="has a CA: penstock certs init --rotate makes another"):
        certs.init("CA", NOW, YEAR_S)
    assert pem(certs.bundle) == before
    first = certs.issue(SERVER, NOW)
    with pytest.raises(AlreadyExists, match=r"penstock certs renew server/localhost .*--replace"):
        certs.issue(SERVER, NOW)
    assert certs.info("server", "localhost", NOW).serial == first.serial
    assert certs.issue(SERVER, NOW, replace=True).serial != first.serial


def test_certificate_and_key_change_in_one_moment(certs: CertsFolder) -> None:
    certs.issue(SERVER, NOW)
    folder = certs.files_of("server", "localhost")
    stop = threading.Event()
    torn: list[str] = []

    def read_on() -> None:
        while not stop.is_set():
            generation = folder / os.readlink(folder / "..data")
            try:
                leaf = from_pem((generation / "tls.crt").read_bytes(), "")[0]
                key = key_from_pem((generation / "tls.key").read_bytes(), "")
            except FileNotFoundError:
                # it was the last but one when its link was read
                continue
            if not same_key(leaf.public_key(), key.public_key()):
                torn.append(generation.name)

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for _ in range(20):
            certs.renew(["server/localhost"], NOW)
    finally:
        stop.set()
        reader.join()
    assert torn == []
    assert len(list(folder.glob("..gen-*"))) == 2, (
        "the last one is there for those who just read it"
    )
    assert not list(folder.glob("*.new"))


def test_a_renewal_says_the_same_with_another_key(certs: CertsFolder) -> None:
    request = make_request("server", "front", dns=["a.b"], ips=["::1"], lifetime_s=3600)
    first = certs.issue(request, NOW)
    key = (certs.files_of("server", "front") / "tls.key").read_bytes()
    (second,) = certs.renew(["server/front"], NOW + DAY)
    assert second.names == first.names
    assert second.serial != first.serial
    assert second.ends_at - first.ends_at == DAY
    assert (certs.files_of("server", "front") / "tls.key").read_bytes() != key


def test_rotation_of_the_ca(certs: CertsFolder) -> None:
    certs.issue(SERVER, NOW)
    certs.issue(CLIENT, NOW)
    (old,) = pem(certs.bundle)
    made = certs.rotate("CA", NOW, YEAR_S)
    assert pem(certs.bundle) == [made.serial, old]
    assert pem(certs.files_of("client", "loader") / "ca.crt") == [made.serial, old]
    leaves = certs.entries(NOW)[2:]
    assert [(i.name, i.by_current_ca, i.should_renew()) for i in leaves] == [
        ("localhost", False, True),
        ("loader", False, True),
    ]
    certs.renew(["server/localhost"], NOW)
    with pytest.raises(ConfigError, match=r"in use: client/loader. First: penstock certs renew"):
        certs.retire(NOW)
    certs.renew(["client/loader"], NOW)
    assert len(pem(certs.files_of("client", "loader") / "tls.crt")) == 2, "certified by the old CA"
    assert [info.serial for info in certs.retire(NOW)] == [old]
    assert pem(certs.bundle) == [made.serial]
    assert not (certs.path / "authority" / "0001.key").exists()
    assert [info.state for info in certs.entries(NOW)[:2]] == ["valid", "retired"]
    assert certs.retire(NOW) == []
    certs.renew(["client/loader"], NOW)
    assert len(pem(certs.files_of("client", "loader") / "tls.crt")) == 1


def test_an_expired_ca_leaves_the_bundle_at_the_next_rotation(certs: CertsFolder) -> None:
    later = NOW + timedelta(days=366)
    with pytest.raises(ConfigError, match=r"the CA expired on .*: penstock certs init --rotate"):
        certs.issue(SERVER, later)
    made = certs.rotate("CA", later, YEAR_S)
    assert pem(certs.bundle) == [made.serial]
    certs.issue(SERVER, later)
    assert len(pem(certs.files_of("server", "localhost") / "tls.crt")) == 1


def test_the_cas_key_with_a_passphrase(tmp_path: Path) -> None:
    passphrases = {"env:ONE": Secret(b"one"), "env:TWO": Secret(b"two")}
    certs = CertsFolder(tmp_path / "certs", lambda ref: passphrases[str(ref)])
    certs.init("CA", NOW, YEAR_S, passphrase=SecretRef.parse("env:ONE"))
    key = certs.path / "authority" / "0001.key"
    assert b"ENCRYPTED" in key.read_bytes()
    certs.issue(SERVER, NOW)
    certs.rotate("CA", NOW, YEAR_S)
    certs.rotate("CA", NOW, YEAR_S, passphrase=SecretRef.parse("env:TWO"))
    certs.renew(["server/localhost"], NOW)
    passphrases["env:TWO"] = Secret(b"wrong")
    with pytest.raises(ConfigError, match=r"0003\.key: the passphrase is wrong"):
        certs.renew(["server/localhost"], NOW)
    whole = b"".join(p.read_bytes() for p in certs.path.rglob("*.json"))
    assert b"env:ONE" in whole


def test_a_passphrase_that_is_too_long(tmp_path: Path) -> None:
    certs = CertsFolder(tmp_path / "certs", lambda ref: Secret(b"x" * 1024))
    with pytest.raises(ConfigError, match="a passphrase is of 1023 bytes at most"):
        certs.init("CA", NOW, YEAR_S, passphrase=SecretRef.parse("env:LONG"))


def test_without_a_ca(tmp_path: Path) -> None:
    certs = CertsFolder(tmp_path / "none", nobody)
    calls: list[Callable[[], object]] = [
        lambda: certs.issue(SERVER, NOW),
        lambda: certs.rotate("CA", NOW, YEAR_S),
        lambda: certs.retire(NOW),
        lambda: certs.renew([], NOW),
        lambda: certs.entries(NOW),
        certs.trust_domain,
    ]
    for call in calls:
        with pytest.raises(
            NotFound, match=f"has no CA: make one by penstock certs init --dir {certs.path}"
        ):
            call()
    assert not certs.path.exists()


def test_where_the_cas_key_is_not(certs: CertsFolder) -> None:
    certs.issue(SERVER, NOW)
    assert certs.can_issue()
    (certs.path / "authority" / "0001.key").unlink()
    assert not certs.can_issue()
    assert certs.info("server", "localhost", NOW).state == "valid"
    with pytest.raises(NotFound, match="certificates are issued where the CA's key is kept"):
        certs.renew(["server/localhost"], NOW)


def test_what_a_server_has_whose_ca_is_elsewhere(certs: CertsFolder, tmp_path: Path) -> None:
    certs.issue(SERVER, NOW)
    there = CertsFolder(tmp_path / "there", nobody)
    shutil.copytree(certs.files_of("server", "localhost"), there.path / "server" / "localhost")
    (info,) = there.entries(NOW)
    assert (info.name, info.state, info.by_current_ca) == ("localhost", "valid", False)
    shutil.copy(certs.bundle, there.bundle)
    assert [info.by_current_ca for info in there.entries(NOW)] == [True]
    assert not there.can_issue()
    with pytest.raises(NotFound, match="has no CA"):
        there.renew(["server/localhost"], NOW)


def test_files_that_are_damaged_are_named(certs: CertsFolder) -> None:
    certs.issue(SERVER, NOW)
    folder = certs.files_of("server", "localhost")
    (folder / "request.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"request\.json: .*missing required field"):
        certs.renew(["server/localhost"], NOW)
    for text, expected in (
        (
            '{"kind": "server", "name": "localhost", "dns": ["\u00fc"], "lifetime_s": 9}',
            "no DNS name",
        ),
        ('{"kind": "server", "name": "other", "lifetime_s": 9}', "is of server/other, expected"),
        ('{"kind": "server", "name": "../../x", "lifetime_s": 9}', "can't be a certificate's name"),
    ):
        (folder / "request.json").write_text(text)
        with pytest.raises(ConfigError, match=rf"request\.json: .*{expected}"):
            certs.renew(["server/localhost"], NOW)
    (folder / "tls.crt").write_text("x")
    with pytest.raises(ConfigError, match=r"tls\.crt is no certificate: expected PEM"):
        certs.info("server", "localhost", NOW)
    other = CertsFolder(certs.path.parent / "other", nobody)
    other.init("CA", NOW, YEAR_S)
    key = certs.path / "authority" / "0001.key"
    key.write_bytes((other.path / "authority" / "0001.key").read_bytes())
    with pytest.raises(ConfigError, match=r"0001\.key is not the key of .*0001\.crt"):
        certs.issue(CLIENT, NOW)


def test_what_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    certs = CertsFolder(tmp_path / "file", nobody)
    with pytest.raises(Unavailable, match=r"file.*: Not a directory"):
        certs.init("CA", NOW, YEAR_S)


def test_a_broken_off_init_is_gone_over(tmp_path: Path) -> None:
    certs = CertsFolder(tmp_path / "certs", nobody)
    (certs.path / "authority").mkdir(parents=True)
    (certs.path / "authority" / "0001.key").write_text("half")
    certs.init("CA", NOW, YEAR_S)
    certs.issue(SERVER, NOW)


def test_names_are_found(certs: CertsFolder) -> None:
    certs.issue(SERVER, NOW)
    certs.issue(make_request("client", "localhost"), NOW)
    assert certs.resolve("localhost") == ["server/localhost", "client/localhost"]
    assert certs.resolve("client/localhost") == ["client/localhost"]
    for name in ("other", "client/other", "ca/localhost"):
        with pytest.raises(NotFound, match=f"has no certificate {name}"):
            certs.resolve(name)
    with pytest.raises(ConfigError, match="can't be a certificate's name"):
        certs.resolve("server/../localhost")


def test_a_certificate_of_which_a_part_can_not_be_read(certs: CertsFolder) -> None:
    """A server that renews goes on, whatever it finds in the folder."""
    der = ssl.PEM_cert_to_DER_cert(certs.bundle.read_text())
    refused = 0
    for at in range(0, len(der), 3):
        bad = der[:at] + bytes((der[at] ^ 4,)) + der[at + 1 :]
        try:
            from_pem(ssl.DER_cert_to_PEM_cert(bad).encode(), "here")
        except ConfigError:
            refused += 1
    assert refused > len(der) / 12
    version_8 = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"))
    with pytest.raises(ConfigError, match="here is no certificate"):
        from_pem(ssl.DER_cert_to_PEM_cert(version_8).encode(), "here")
