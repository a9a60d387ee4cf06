"""Files of certificates that change while a server runs: taken when they are good and whole, else refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certificates import Authority, Pair, replace
from penstock.errors import ConfigError
from penstock.gateway.tls_files import TlsFiles
from penstock.secrets.source import SecretSource
from penstock.secrets_config import SecretRef
from penstock.supervisor import tls_keeper
from penstock.supervisor.file_events import FileEvents
from penstock.supervisor.tls_keeper import TlsKeeper
from penstock.tls_config import TlsSettings
from penstock.workers.supervisor_messages import TlsState

CA = Authority()


class Kept:
    """A keeper that runs, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair = CA.issue()
        certificate, key = self.pair.write(folder, "server")
        self.ca = replace(folder / "ca.pem", CA.certificate)
        self.settings = TlsSettings(
            cert_file=certificate, key_file=key, client_ca_file=self.ca, client_auth="require"
        )
        (folder / "run").mkdir()
        self.files = TlsFiles.of_run(folder / "run")
        self.keeper = TlsKeeper(self.settings, self.files)
        self.states: asyncio.Queue[TlsState] = asyncio.Queue()
        self.keeper.on_change = self.states.put_nowait
        self.keeper.open()

    async def next(self) -> TlsState:
        return await asyncio.wait_for(self.states.get(), 20)

    def served(self) -> bytes:
        return self.files.certificates.read_bytes()


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    task = asyncio.create_task(made.keeper.run())
    yield made
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_keeper, "SETTLED_S", 0.3)


async def test_a_new_pair_is_taken(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        new = CA.issue("elsewhere")
        new.write(kept.folder, "server")
        state = await kept.next()
    assert (state.rotations, state.refused) == (1, 0)
    assert kept.served() == new.certificate
    assert f"a new certificate is served: CN=elsewhere, serial {new.serial:x}, until" in caplog.text


async def test_the_same_pair_written_anew_is_no_change(kept: Kept) -> None:
    kept.pair.write(kept.folder, "server")
    CA.issue("elsewhere").write(kept.folder, "server")
    assert (await kept.next()).rotations == 1


async def test_other_cas(kept: Kept) -> None:
    replace(kept.ca, CA.certificate + Authority("new").certificate)
    assert (await kept.next()).rotations == 1
    assert kept.files.client_ca.read_bytes().count(b"BEGIN") == 2


@pytest.mark.usefixtures("quick")
async def test_a_bad_pair_is_refused_and_said(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    Pair(CA.issue().certificate, CA.issue().key, 0).write(kept.folder, "server")
    state = await kept.next()
    assert (state.rotations, state.refused) == (0, 1)
    assert kept.served() == kept.pair.certificate
    assert "the new files are refused, the old ones go on, until" in caplog.text
    assert "server.key is not the key of the certificate" in caplog.text
    good = CA.issue()
    good.write(kept.folder, "server")
    assert (await kept.next()).rotations == 1
    assert kept.served() == good.certificate


async def test_a_key_may_come_after_its_certificate(kept: Kept) -> None:
    new = CA.issue()
    replace(kept.folder / "server.pem", new.certificate)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kept.states.get(), tls_keeper.QUIET_S * 3)
    replace(kept.folder / "server.key", new.key)
    state = await kept.next()
    assert (state.rotations, state.refused) == (1, 0)


@pytest.mark.usefixtures("quick")
async def test_what_somebody_is_writing_is_left_alone(kept: Kept) -> None:
    """The CA's file looks whole between two of its certificates: only that it is still open tells."""
    with kept.ca.open("wb", buffering=0) as file:
        file.write(Authority("first").certificate)
        # longer than what is no good is waited for
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(kept.states.get(), 0.6)
        file.write(CA.certificate)
    assert (await kept.next()).rotations == 1
    assert kept.files.client_ca.read_bytes().count(b"BEGIN") == 2


async def test_a_link_that_is_replaced(tmp_path: Path) -> None:
    """As Kubernetes changes its secrets."""
    for number, pair in enumerate((CA.issue(), CA.issue())):
        (tmp_path / f"..{number}").mkdir()
        pair.write(tmp_path / f"..{number}", "server")
    (tmp_path / "..data").symlink_to("..0")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    found = TlsSettings(cert_file=tmp_path / "server.pem", key_file=tmp_path / "server.key")
    (tmp_path / "run").mkdir()
    keeper = TlsKeeper(found, TlsFiles.of_run(tmp_path / "run"))
    keeper.open()
    states: asyncio.Queue[TlsState] = asyncio.Queue()
    keeper.on_change = states.put_nowait
    task = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    (tmp_path / "..new").symlink_to("..1")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert (await asyncio.wait_for(states.get(), 20)).rotations == 1
    task.cancel()


async def test_where_nothing_is_heard_one_looks(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_keeper, "LOOK_S", 0.05)
    monkeypatch.setattr(tls_keeper, "SETTLED_S", 0.2)
    monkeypatch.setattr(FileEvents, "_watch_all", lambda _: None)
    deaf = TlsKeeper(kept.settings, TlsFiles(kept.folder / "other"))
    deaf.open()
    states: asyncio.Queue[TlsState] = asyncio.Queue()
    deaf.on_change = states.put_nowait
    task = asyncio.create_task(deaf.run())
    CA.issue().write(kept.folder, "server")
    assert (await asyncio.wait_for(states.get(), 20)).rotations == 1
    task.cancel()


async def test_only_what_was_read_lately_is_kept(kept: Kept) -> None:
    for _ in range(5):
        CA.issue().write(kept.folder, "server")
        await kept.next()
    assert len([p for p in kept.files.folder.iterdir() if not p.is_symlink()]) == 3
    for path in kept.files.pinned().link.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_bad_start_is_refused(tmp_path: Path) -> None:
    certificate, key = CA.issue().write(tmp_path, "server")
    key.write_bytes(b"")
    found = TlsSettings(cert_file=certificate, key_file=key)
    with pytest.raises(ConfigError, match=r"^tls\.key_file: .*server\.key has no key"):
        TlsKeeper(found, TlsFiles(tmp_path / "tls")).open()


def test_a_passphrase_is_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = CA.issue(passphrase=b"hush").write(tmp_path, "server")
    found = TlsSettings(
        cert_file=certificate, key_file=key, key_passphrase=SecretRef.parse("env:TLS_PASSPHRASE")
    )
    with (
        contextlib.closing(SecretSource()) as secrets,
        pytest.raises(ConfigError, match=r"^tls\.key_passphrase: env:TLS_PASSPHRASE: "),
    ):
        TlsKeeper(found, TlsFiles(tmp_path / "one"), secrets).open()
    monkeypatch.setenv("TLS_PASSPHRASE", "hush")
    with contextlib.closing(SecretSource()) as secrets:
        files = TlsFiles(tmp_path / "two")
        TlsKeeper(found, files, secrets).open()
        assert "BEGIN PRIVATE KEY" in files.key.read_text()


async def test_others_may_write_beside_the_files(kept: Kept) -> None:
    """A log in the same folder must not keep the supervisor busy."""
    events = FileEvents(kept.settings.files)
    await events.wait(0)
    with (kept.folder / "log").open("w") as file:
        # the folder has one name more
        assert await events.wait(20)
        file.write("x")
        file.flush()
        assert not await events.wait(0.2)
    events.close()


def test_a_key_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = CA.issue().write(tmp_path, "server")
    found = TlsSettings(cert_file=certificate, key_file=key)
    TlsKeeper(found, TlsFiles(tmp_path / "one")).open()
    assert not caplog.records
    key.chmod(0o644)
    TlsKeeper(found, TlsFiles(tmp_path / "two")).open()
    assert "may be read or written by every user of this machine (mode 644)" in caplog.text


def test_what_openssl_does_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reasons can be others than ours: the front must not be the first to find out."""

    def refuse(*_: object) -> None:
        raise ssl.SSLError(1, "[SSL: CA_MD_TOO_WEAK] ca md too weak (_ssl.c:4149)")

    certificate, key = CA.issue().write(tmp_path, "server")
    files = TlsFiles(tmp_path / "tls")
    keeper = TlsKeeper(TlsSettings(cert_file=certificate, key_file=key), files)
    monkeypatch.setattr("penstock.supervisor.tls_store.make_context", refuse)
    with pytest.raises(ConfigError, match=r"server\.pem can't be used"):
        keeper.open()
    assert not list(files.folder.iterdir())


async def test_the_end_is_warned_of(
    kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = datetime.now(UTC) + timedelta(hours=23)
    monkeypatch.setattr("penstock.supervisor.tls_keeper.utc_now", lambda: later)
    CA.issue(after=timedelta(hours=22), lasts=timedelta(hours=2)).write(kept.folder, "server")
    await kept.next()
    assert "the certificate ends in" in caplog.text
    assert f"Put a new one into {kept.settings.cert_file}" in caplog.text
