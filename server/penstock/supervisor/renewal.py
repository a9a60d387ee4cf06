"""Renews the server's own certificate while it serves, from the CA of its folder.

It only writes files, as `penstock certs renew` does: whoever watches them takes the new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from penstock.certs.folder import CertsFolder
from penstock.certs.inspection import CertInfo, shown, utc_now
from penstock.errors import ConfigError, NotFound, PenstockError
from penstock.secrets.source import SecretSource
from penstock.secrets_config import SecretsSettings
from penstock.tls_config import TlsSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RenewalTiming:
    """When it looks, and tries again."""

    look_s: float = 60.0
    """The folder is looked at so often at least: a person may have renewed, or made a new CA."""
    jitter: float = 0.05
    """Share of a certificate's life by which servers differ that were started together."""
    first_retry_s: float = 5.0
    longest_retry_s: float = 300.0
    """What failed is tried again, twice as late each time; sooner where the certificate's end is near."""
    shortest_s: float = 0.1


class CertRenewal:
    """Of one server. `run` it for as long as it serves."""

    def __init__(
        self,
        certs: CertsFolder,
        name: str,
        *,
        timing: RenewalTiming | None = None,
        clock: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`timing`, `clock` and `chance` are for tests."""
        self._certs: Final = certs
        self._name: Final = name
        self._timing: Final = timing or RenewalTiming()
        self._clock: Final = clock
        self._share: Final = self._timing.jitter * chance()
        self._failures = 0
        self._warned_of_ca = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # files, and maybe Vault for the passphrase of the CA's key
            delay_s = await asyncio.to_thread(self.step)
            await asyncio.sleep(delay_s)

    def step(self) -> float:
        """Look, and renew what is due. Returns the seconds until the next look."""
        now = self._clock()
        try:
            info = self._certs.info("server", self._name, now)
            due_at = self._due_at(info, now)
            if due_at <= now:
                info = self._renew(info, now)
                due_at = self._due_at(info, now)
        except PenstockError as error:
            return self._failed(error, now)
        self._failures = 0
        wait_s = (due_at - now).total_seconds()
        return min(max(wait_s, self._timing.shortest_s), self._timing.look_s)

    def _due_at(self, info: CertInfo, now: datetime) -> datetime:
        """When it is to be renewed: never, while that would not give it a later end."""
        authority = self._certs.authority(now)
        if authority.state != "valid":
            self._warn_of(authority, now)
        if not info.by_current_ca:
            return now
        if info.ends_at >= authority.ends_at:
            return now + timedelta(seconds=self._timing.look_s)
        return info.due_at + (info.ends_at - info.starts_at) * self._share

    def _renew(self, old: CertInfo, now: datetime) -> CertInfo:
        (new,) = self._certs.renew([f"server/{self._name}"], now)
        _log.info(
            "the server's certificate %s was renewed: it ends in %s, the old one would have in %s",
            self._name,
            shown(new.ends_at - now),
            shown(old.ends_at - now),
        )
        return new

    def _failed(self, error: PenstockError, now: datetime) -> float:
        timing = self._timing
        doubled_s: float = timing.first_retry_s * 2 ** min(self._failures, 10)
        delay_s = min(doubled_s, timing.longest_retry_s)
        left_s = self._left_s(now)
        if left_s is not None and left_s > 0:
            delay_s = min(delay_s, max(left_s / 10, timing.shortest_s))
        self._failures += 1
        _log.error(
            "the server's certificate %s can't be renewed: %s. It %s, and this is tried again in %.1f s",
            self._name,
            error,
            _end(left_s),
            delay_s,
        )
        return delay_s

    def _left_s(self, now: datetime) -> float | None:
        try:
            info = self._certs.info("server", self._name, now)
        except PenstockError:
            return None
        return (info.ends_at - now).total_seconds()

    def _warn_of(self, authority: CertInfo, now: datetime) -> None:
        if self._warned_of_ca == authority.serial:
            return
        self._warned_of_ca = authority.serial
        _log.warning(
            "the CA %s ends in %s, and so does all that it has issued: penstock certs init --rotate"
            " --dir %s",
            authority.name,
            shown(authority.ends_at - now),
            self._certs.path,
        )


@contextlib.asynccontextmanager
async def renewing(tls: TlsSettings, secrets: SecretsSettings) -> AsyncIterator[None]:
    """Within the block the certificate is renewed when it is due; once, if it is, before the block begins.

    Raises ConfigError where the settings' folder has no certificate for this server, or can't issue one and should.
    """
    if tls.certs_dir is None:
        yield
        return
    source = SecretSource(secrets)
    certs = CertsFolder(tls.certs_dir, source.get)
    task: asyncio.Task[None] | None = None
    try:
        renewal = await asyncio.to_thread(_opened, certs, tls)
        if renewal is not None:
            await asyncio.to_thread(renewal.step)
            task = asyncio.create_task(renewal.run())
            task.add_done_callback(_say_why)
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await asyncio.to_thread(source.close)


def _opened(certs: CertsFolder, tls: TlsSettings) -> CertRenewal | None:
    """None: it is renewed elsewhere, or by hand."""
    name = tls.certs_name
    try:
        certs.info("server", name, utc_now())
    except NotFound as error:
        raise ConfigError(
            f"tls.certs_dir: {error}: make it by penstock certs issue server {name} --dir"
            f" {certs.path}, or say another one by tls.certs_name"
        ) from None
    if not tls.auto_renew:
        return None
    if not certs.can_issue():
        _log.info(
            "%s has no key of a CA: this server does not renew its certificate itself", certs.path
        )
        return None
    try:
        certs.check_key()
    except PenstockError as error:
        raise ConfigError(f"tls.auto_renew: {error}") from None
    return CertRenewal(certs, name)


def _say_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("certificates are not renewed any more", exc_info=error)


def _end(left_s: float | None) -> str:
    if left_s is None:
        return "can't be read"
    if left_s <= 0:
        return f"expired {shown(timedelta(seconds=left_s))} ago"
    return f"ends in {shown(timedelta(seconds=left_s))}"
