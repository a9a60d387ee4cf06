"""The folder of roll-outs: what of them outlives the server. One server's alone. All of it blocks."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from penstock.config import Settings
from penstock.errors import Unavailable
from penstock.gateway.rollout_sight import RolloutCounts
from penstock.rollouts_config import rollouts_state

log = logging.getLogger(__name__)

FORMAT: Final = 1
MAX_BYTES: Final = 16 << 20
_LOCK: Final = ".lock"
_DEFAULTS: Final = "defaults.json"
_SUFFIX: Final = ".rollout.json"
_LONGEST: Final = 200


class KeptRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A roll-out as its file has it."""

    model: str
    state: msgspec.Raw
    """As `Rollout.to_json` says."""
    counts: RolloutCounts
    by: str = ""
    """Who began it: a principal, or an alias."""
    started_at: str = ""
    """As RFC 3339."""
    ended_at: str = ""
    """Empty: it goes on."""
    problem: str = ""
    alias: str = ""
    """Of the stable version, in a registry: what a promotion moves. Empty: not known yet."""
    tried: tuple[int, ...] = ()
    """Versions that were tried, this one among them."""
    format: int = FORMAT


class _Defaults(msgspec.Struct, frozen=True):
    versions: dict[str, int] = {}
    format: int = FORMAT


Kind = TypeVar("Kind", KeptRollout, _Defaults)


class RolloutStore:
    """One folder, which is made when something is to be kept. Methods raise Unavailable, naming it."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self._lock: int | None = None
        self._was_read = False

    def load(self) -> tuple[Mapping[str, int], list[KeptRollout]]:
        """Model → the version that answers requests which name none; and all roll-outs. What can't be read is left out,
        and said in the log."""
        if self.folder.is_dir():
            self._open()
        self._was_read = True
        if self._lock is None:
            return {}, []
        found = sorted(self.folder.glob(f"*{_SUFFIX}"))
        kept = [each for path in found if (each := self._read(path, KeptRollout)) is not None]
        return self.defaults(), kept

    def defaults(self) -> Mapping[str, int]:
        """Model → the version that answers requests which name none, also where the folder is another server's."""
        found = self._read(self.folder / _DEFAULTS, _Defaults)
        return {} if found is None else found.versions

    def save(self, kept: KeptRollout) -> None:
        """Keep a roll-out, in the place of the model's last one."""
        self._write(self._path(kept.model), msgspec.json.encode(kept))

    def save_defaults(self, versions: Mapping[str, int]) -> None:
        """Keep which versions answer requests that name none. Of other models stays what another server has left that
        had the folder when this one began."""
        if not self._was_read:
            self._open()
            versions = {**self.defaults(), **versions}
        self._write(self.folder / _DEFAULTS, msgspec.json.encode(_Defaults(dict(versions))))

    def remove(self, model: str) -> None:
        """Forget the model's roll-out."""
        self._open()
        try:
            self._path(model).unlink(missing_ok=True)
        except OSError as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """Let another server have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> None:
        """Make the folder this server's."""
        if self._lock is not None:
            return
        descriptor = -1
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.folder / _LOCK, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Unavailable(
                f"the roll-outs in {self.folder} are another server's, which runs: [rollouts] folder names another one"
            ) from None
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise self._problem(error) from error
        self._lock = descriptor

    def _read(self, path: Path, kind: type[Kind]) -> Kind | None:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES)
            found = msgspec.json.decode(content, type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            log.error("%s can't be read, and is left as it is: %s", path, error)  # noqa: TRY400
            return None
        if found.format != FORMAT:
            log.error(
                "%s is of format %s, and is left as it is: expected %d", path, found.format, FORMAT
            )
            return None
        return found

    def _write(self, path: Path, content: bytes) -> None:
        """A whole file in its place, or none."""
        self._open()
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.folder)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise self._problem(error) from error

    def _path(self, model: str) -> Path:
        name = quote(model, safe="")
        if len(name) > _LONGEST:
            name = sha256(model.encode(errors="surrogateescape")).hexdigest()
        return self.folder / f"{name}{_SUFFIX}"

    def _problem(self, error: OSError) -> Unavailable:
        return Unavailable(f"roll-outs can't be kept in {self.folder}: {error.strerror or error}")


def store_of(settings: Settings) -> RolloutStore:
    """The one that the settings name, or that is these model repositories' own, or else these registered models'."""
    folder = settings.rollouts.folder
    if folder is None:
        repositories, registry = settings.model_repository, settings.registry
        registered = registry.uri, registry.uri_secret, *registry.models
        sources: tuple[object, ...] = repositories or registered
        named = "\0".join(map(str, sources)).encode(errors="surrogateescape")
        name = repositories[0].name if repositories else "models"
        folder = rollouts_state() / f"{name}-{sha256(named).hexdigest()[:12]}"
    return RolloutStore(folder)
