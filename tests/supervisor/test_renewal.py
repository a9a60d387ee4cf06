"""When a server's certificate is renewed: with a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock.certs.folder import CertsFolder
from penstock.certs.request import make_request
from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef, SecretsSettings
from penstock.supervisor.renewal import CertRenewal, RenewalTiming, renewing
from penstock.tls_config import TlsSettings

START = datetime(2026, 11, 28, 12, tzinfo=UTC)
YEAR_S = 365 * 86_400
LIFE_S = 90_000
"""With the time it is dated back, 27.5 % more than a day's: 93,600 s."""


def nobody(ref: SecretRef) -> Secret:
    raise AssertionError(f"{ref} was asked for")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Rig:
    """A CA, a server's certificate, and who renews it."""

    def __init__(self, path: Path, *, ca_s: int = YEAR_S, chance: float = 0.0) -> None:
        self.clock = Clock()
        self.certs = CertsFolder(path, nobody)
        self.certs.init("CA", START, ca_s)
        self.certs.issue(make_request("server", "localhost", lifetime_s=LIFE_S), START)
        self.renewal = CertRenewal(
            self.certs,
            "localhost",
            timing=RenewalTiming(look_s=1e9),
            clock=self.clock,
            chance=lambda: chance,
        )

    @property
    def serial(self) -> str:
        return self.certs.info("server", "localhost", self.clock.now).serial


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "certs")


DUE_S = (LIFE_S + 3600) * 2 / 3 - 3600


def test_it_is_renewed_at_two_thirds_and_not_before(rig: Rig) -> None:
    first = rig.serial
    assert rig.renewal.step() == DUE_S
    rig.clock.go(DUE_S - 1)
    assert rig.renewal.step() == 1
    assert rig.serial == first
    rig.clock.go(1)
    assert rig.renewal.step() == DUE_S
    assert rig.serial != first


def test_servers_started_together_differ(tmp_path: Path) -> None:
    late = Rig(tmp_path / "certs", chance=1.0)
    assert late.renewal.step() == pytest.approx(DUE_S + 0.05 * (LIFE_S + 3600))


def test_the_folder_is_looked_at_all_the_same(rig: Rig) -> None:
    assert CertRenewal(rig.certs, "localhost", clock=rig.clock).step() == 60


def test_a_new_ca_renews_at_once(rig: Rig) -> None:
    first = rig.serial
    rig.certs.rotate("CA", START, YEAR_S)
    rig.renewal.step()
    assert rig.serial != first
    assert rig.certs.info("server", "localhost", START).by_current_ca


def test_what_a_person_renewed_is_left_alone(rig: Rig) -> None:
    rig.clock.go(DUE_S)
    rig.certs.renew(["server/localhost"], rig.clock.now)
    serial = rig.serial
    assert rig.renewal.step() == DUE_S
    assert rig.serial == serial


def test_failures_are_told_and_tried_again_later_each_time(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    key = rig.certs.path / "authority" / "0001.key"
    kept = key.read_bytes()
    key.unlink()
    rig.clock.go(DUE_S)
    first = rig.serial
    with caplog.at_level(logging.INFO, "penstock"):
        delays = [rig.renewal.step() for _ in range(8)]
        assert delays == [5, 10, 20, 40, 80, 160, 300, 300]
        assert rig.serial == first
        assert "can't be renewed" in caplog.text
        assert "It ends in 8h, and this is tried again in 5.0 s" in caplog.text
        key.write_bytes(kept)
        assert rig.renewal.step() == DUE_S
    assert rig.serial != first
    assert "was renewed: it ends in 25h" in caplog.text
    key.unlink()
    rig.clock.go(DUE_S)
    assert rig.renewal.step() == 5


def test_near_the_end_it_is_tried_more_often(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    (rig.certs.path / "authority" / "0001.key").unlink()
    rig.clock.go(LIFE_S - 20)
    assert rig.renewal.step() == 2
    rig.clock.go(19.9)
    assert rig.renewal.step() == 0.1
    rig.clock.go(60)
    assert rig.renewal.step() == 20
    assert "It expired 59s ago" in caplog.text


def test_an_expired_certificate_is_renewed(rig: Rig) -> None:
    first = rig.serial
    rig.clock.go(LIFE_S * 3)
    rig.renewal.step()
    assert rig.serial != first


def test_it_is_not_renewed_where_the_cas_end_is_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path / "certs", ca_s=LIFE_S + 1000)
    rig.clock.go(DUE_S)
    rig.renewal.step()
    serial = rig.serial
    rig.clock.go(20_000)
    with caplog.at_level(logging.WARNING):
        assert rig.renewal.step() == 1e9
        assert rig.renewal.step() == 1e9
    assert rig.serial == serial
    warnings = [r for r in caplog.records if "penstock certs init --rotate --dir" in r.message]
    assert len(warnings) == 1


def test_what_is_not_there_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    renewal = CertRenewal(CertsFolder(tmp_path, nobody), "localhost")
    assert renewal.step() == 5
    assert "has no certificate server/localhost. It can't be read" in caplog.text


async def test_it_goes_on_by_itself_with_the_real_clock(tmp_path: Path) -> None:
    certs = CertsFolder(tmp_path / "certs", nobody)
    certs.init("CA", datetime.now(UTC), YEAR_S)
    request = make_request("server", "localhost", lifetime_s=1)
    first = certs.issue(request, datetime.now(UTC)).serial
    task = asyncio.create_task(CertRenewal(certs, "localhost").run())
    try:
        async with asyncio.timeout(60):
            seen = {first}
            while len(seen) < 3:
                await asyncio.sleep(0.02)
                seen.add(certs.info("server", "localhost", datetime.now(UTC)).serial)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ── within a server ─────────────────────────────────────────────────────────────────────────────────────────────────


def issued(path: Path, lifetime_s: int = LIFE_S) -> CertsFolder:
    now = datetime.now(UTC)
    certs = CertsFolder(path, nobody)
    certs.init("CA", now, YEAR_S)
    certs.issue(make_request("server", "localhost", lifetime_s=lifetime_s), now)
    return certs


def serial_of(certs: CertsFolder) -> str:
    return certs.info("server", "localhost", datetime.now(UTC)).serial


async def test_what_is_due_is_renewed_before_the_server_starts(tmp_path: Path) -> None:
    certs = issued(tmp_path / "certs")
    before = serial_of(certs)
    settings = TlsSettings(certs_dir=certs.path)
    async with renewing(settings, SecretsSettings()):
        assert serial_of(certs) == before
    certs.rotate("CA", datetime.now(UTC), YEAR_S)
    async with renewing(settings, SecretsSettings()):
        assert serial_of(certs) != before


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    certs = issued(tmp_path / "certs")
    before = serial_of(certs)
    certs.rotate("CA", datetime.now(UTC), YEAR_S)
    async with renewing(TlsSettings(certs_dir=certs.path, auto_renew=False), SecretsSettings()):
        assert serial_of(certs) == before


async def test_where_the_ca_is_elsewhere_it_only_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certs = issued(tmp_path / "certs")
    (certs.path / "authority" / "0001.key").unlink()
    with caplog.at_level(logging.INFO, "penstock"):
        async with renewing(TlsSettings(certs_dir=certs.path), SecretsSettings()):
            pass
    assert "has no key of a CA: this server does not renew its certificate itself" in caplog.text


async def test_a_certificate_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    settings = TlsSettings(certs_dir=issued(tmp_path / "certs").path, certs_name="other")
    with pytest.raises(ConfigError, match="make it by penstock certs issue server other --dir"):
        async with renewing(settings, SecretsSettings()):
            raise AssertionError("started")


async def test_without_a_folder_there_is_nothing_to_do() -> None:
    async with renewing(TlsSettings(), SecretsSettings()):
        assert len(asyncio.all_tasks()) == 1


def test_the_folder_stands_for_its_files(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[tls]\ncerts_dir = "pki"\ncerts_name = "a.b"\nclient_auth = "require"\n')
    settings = load_settings({}, file)
    own = tmp_path / "pki" / "server" / "a.b"
    assert settings.tls.files == (own / "tls.crt", own / "tls.key", tmp_path / "pki" / "ca.crt")
    settings.write(tmp_path / "settings.json")
    assert Settings.read(tmp_path / "settings.json") == settings


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".x"])
def test_no_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="tls-certs-name"):
        load_settings({"tls_certs_dir": str(tmp_path), "tls_certs_name": name})
