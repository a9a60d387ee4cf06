"""Decides whether a model version may be loaded, and makes the private copy that it is loaded from."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from penstock.artifacts_config import ArtifactsSettings, TrustRule
from penstock.config import Settings
from penstock.errors import (
    ConfigError,
    LoadFailed,
    ReleasesUnreadable,
    Untrusted,
    WrongKey,
    WrongKeyEncryptionKey,
)
from penstock.secrets_config import SecretRef
from penstock.trust.artifact import Artifact, Judgement
from penstock.trust.copying import Copying, refused_pickle
from penstock.trust.counts import TrustCounts
from penstock.trust.folder import opened
from penstock.trust.kek import KeyRing, key_ring
from penstock.trust.manifest import belongs
from penstock.trust.memory import memory_path
from penstock.trust.pickles import find_pickle
from penstock.trust.release_check import (
    check_release,
    manifest_digest,
    shared_digest,
    signed_manifest,
)
from penstock.trust.releases import Releases, Served
from penstock.trust.sealed import SUFFIX
from penstock.trust.signers import Signers, load_signers
from penstock.trust.staging import Draft, Staged, Staging, Verified

log = logging.getLogger(__name__)

ReadSecret = Callable[[SecretRef], bytes]


class Trust:
    """All policies of a server. Its methods block: call them in a thread."""

    def __init__(
        self,
        settings: ArtifactsSettings,
        staging: Staging,
        read_secret: ReadSecret,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        links: Path | None = None,
        *,
        has_clients: bool = True,
    ) -> None:
        """`links`: a folder of the server's own, of links to models. `has_clients`: what is wrong with the server's own
        files is for its log alone."""
        self._settings: Final = settings
        self.staging: Final = staging
        self._read_secret: Final = read_secret
        self._now: Final = now
        self._links: Final = links
        self._has_clients: Final = has_clients
        self.releases: Final = Releases(settings.state_path)
        self.counts: Final = TrustCounts()
        self._observers: Final[list[Callable[[Judgement], None]]] = [self.counts, _log]
        self._lock: Final = threading.Lock()

    def observe(self, observer: Callable[[Judgement], None]) -> None:
        """`observer` is told of each check, in the thread that makes it."""
        self._observers.append(observer)

    def rule_for(self, model: str, tenant: str = "") -> TrustRule | None:
        """The rule that asks something of the model; None: no signature is needed."""
        rule = self._settings.rule_for(model, tenant)
        return None if rule is None or rule.require == "none" else rule

    def stage(self, artifact: Artifact) -> Staged | None:
        """The private copy to load from; None: nothing is asked of the model, and it is loaded from where it lies.

        Raises Untrusted, ConfigError, Unavailable, OSError.
        """
        if (kept := self._inherited(artifact, artifact.key)) is not None:
            return kept
        started = time.monotonic()
        try:
            staged = self._stage(artifact)
        except Untrusted as error:
            self.refused(artifact, error)
            raise
        except OSError as error:
            # its text may show where the server keeps things
            log.error("%s/%d can't be verified: %s", artifact.model, artifact.version, error)  # noqa: TRY400
            raise LoadFailed(f"its files can't be read or copied: {error.strerror}") from error
        if staged is not None:
            try:
                self._tell(_judgement(staged.verified, time.monotonic() - started))
            except BaseException:
                staged.close()
                raise
        return staged

    def refused(self, artifact: Artifact, error: Untrusted) -> None:
        """Tell all observers."""
        name = type(error).__name__
        self._tell(Judgement(artifact.model, artifact.version, name, str(error)))

    def fallback(self, artifact: Artifact) -> Staged | None:
        """What the gateway before this one, which crashed, had verified and served; None: nothing."""
        return self._inherited(artifact, None)

    def loaded(self, staged: Staged) -> None:
        """It is about to be served: older ones are not from now on. Raises ReleasesUnreadable."""
        found = staged.verified
        if found.released:
            served = Served(found.serial, found.digest, found.shared)
            self.releases.record(found.model, found.version, served)

    def withdrawn(self, model: str, version: int) -> None:
        """The server itself serves that version no more, and goes back to an older one: that is no downgrade."""
        try:
            self.releases.reset(model, version)
        except ReleasesUnreadable as error:
            log.error("%s/%d: %s", model, version, error)  # noqa: TRY400 - it says all

    def check(self, artifact: Artifact) -> None:
        """Verify a version, and load nothing: to tell what was tampered with from what was wrong from the start.
        Raises Untrusted."""
        rule = self.rule_for(artifact.model, artifact.tenant)
        if rule is not None:
            draft = self.staging.draft(artifact.model, in_memory=_has_encrypted(artifact))
            try:
                self._verified(artifact, rule, draft)
            finally:
                draft.drop()

    def _inherited(self, artifact: Artifact, key: bytes | None) -> Staged | None:
        with self._lock:
            kept = self.staging.inherited(artifact.model, artifact.version, key)
            return None if kept is None else self.staging.claim(kept)

    def _stage(self, artifact: Artifact) -> Staged | None:
        rule = self.rule_for(artifact.model, artifact.tenant)
        encrypted = _has_encrypted(artifact)
        if rule is None and not encrypted:
            self._check_pickles(artifact)
            return None
        draft = self.staging.draft(artifact.model, in_memory=encrypted)
        try:
            return draft.finish(self._verified(artifact, rule, draft))
        except BaseException:
            draft.drop()
            raise

    def _verified(self, artifact: Artifact, rule: TrustRule | None, draft: Draft) -> Verified:
        linked = artifact.folder.parent == self._links
        with opened(artifact.folder.resolve() if linked else artifact.folder) as folder:
            signer, manifest = (
                ("", None)
                if rule is None
                else signed_manifest(artifact, partial(self._signers, rule), folder, self._now())
            )
            copying = Copying(
                artifact.model,
                artifact.version,
                self._ring() if draft.in_memory else KeyRing(()),
                manifest,
                encrypted=rule is not None and rule.require == "signed+encrypted",
                pickles=self._settings.may_hold_pickles(artifact.model),
            )
            files, nbytes = copying.into(draft, folder)
            serial = None
            if rule is not None and manifest is not None:
                serial = check_release(
                    self.releases, artifact, rule, manifest, draft, folder.versions()
                )
        return Verified(
            model=artifact.model,
            version=artifact.version,
            key=artifact.key,
            signer=signer,
            serial=serial or 0,
            released=serial is not None,
            digest="" if manifest is None else manifest_digest(manifest, artifact.version),
            shared="" if manifest is None else shared_digest(manifest),
            encrypted=draft.in_memory,
            files=files,
            nbytes=nbytes,
        )

    def _check_pickles(self, artifact: Artifact) -> None:
        if self._settings.may_hold_pickles(artifact.model):
            return
        for path in _paths(artifact.folder, artifact.version):
            try:
                with _opened(artifact.folder / path) as file:
                    why = find_pickle(file, path)
            except OSError:
                # gone, or a link to nothing: whoever needs it will tell
                continue
            if why:
                raise refused_pickle(path, why)

    def _ring(self) -> KeyRing:
        current = self._settings.key_encryption_key
        references = [] if current is None else [current, *self._settings.old_key_encryption_keys]
        try:
            return key_ring(references, self._read_secret)
        except ConfigError as error:
            why = self._why(error)
            raise WrongKeyEncryptionKey(f"no key-encryption key can be read{why}") from error

    def _signers(self, rule: TrustRule) -> Signers:
        # read each time: a key that is not trusted any more is to be so at once
        try:
            return load_signers(rule.public_keys, rule.certificate_authorities, rule.signers)
        except ConfigError as error:
            why = self._why(error)
            raise WrongKey(f"the keys that the policy trusts can't be read{why}") from error

    def _why(self, error: ConfigError) -> str:
        """Clients are not told where the server keeps its keys; who runs a command is."""
        if not self._has_clients:
            return f": {error}"
        log.error("%s", error)
        return "; the server's log says more"

    def _tell(self, judgement: Judgement) -> None:
        for observer in self._observers:
            observer(judgement)


def _judgement(found: Verified, seconds: float) -> Judgement:
    return Judgement(
        found.model,
        found.version,
        "verified" if found.signer else "decrypted",
        "",
        found.signer,
        found.serial,
        found.digest,
        found.nbytes,
        seconds,
    )


def _log(judgement: Judgement) -> None:
    # why something is refused is told by whoever wanted to load it
    if judgement.outcome == "verified":
        log.info(
            "%s/%d is verified: release %d, signed by %s; %d bytes in %.3f s",
            judgement.model,
            judgement.version,
            judgement.serial,
            judgement.signer,
            judgement.nbytes,
            judgement.seconds,
        )


def trust_of(settings: Settings, read_secret: ReadSecret, links: Path | None = None) -> Trust:
    """The policies of a server, whose copies lie in the run's folder."""
    run_dir, memory = settings.run_dir, None
    if run_dir is not None and settings.artifacts.key_encryption_key is not None:
        memory = memory_path(settings.artifacts, run_dir)
    staging = Staging(run_dir and run_dir / "trusted", memory)
    return Trust(settings.artifacts, staging, read_secret, links=links)


def no_secrets(reference: SecretRef) -> bytes:
    """For servers that have none."""
    raise ConfigError(f"{reference}: this server reads no secrets")


def _has_encrypted(artifact: Artifact) -> bool:
    return any(path.endswith(SUFFIX) for path in _paths(artifact.folder, artifact.version))


def _opened(path: Path) -> BinaryIO:
    """Raises OSError, also where it is no file: one would wait for whoever writes into a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return open(descriptor, "rb")


def _paths(root: Path, version: int) -> list[str]:
    """The files below a model's folder that a version is loaded from, those in folders that are linked there too."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            # a link to a folder that it lies in, or a second one
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        prefix = "" if folder == str(root) else f"{os.path.relpath(folder, root)}/"
        folders[:] = [
            n for n in folders if n != "__pycache__" and belongs(f"{prefix}{n}/", version)
        ]
        found += [f"{prefix}{name}" for name in files]
    return found
