"""Files of models by their digests, and which of them are a version: what survives a restart, and servers may share.

    blobs/ab/abcd…             a file, named by its SHA-256, read-only
    versions/KEY/MODEL/3.json  the files of a version: a Manifest
    known/KEY/MODEL.json       what references last meant, for a start without the registry
    known.lock                 held while that is changed
    fetches/                   what is on its way
    views/RUN/                 what a server that runs serves: links to blobs

KEY stands for the registry. Nothing is ever changed in place: what is there is whole, or its digest says otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from penstock.registry.manifest import Known, Manifest, digest_of

LONGEST_NAME: Final = 200
SETTLED_S: Final = 3600.0
"""What lies among the fetches for longer, and is locked by nobody, was left by one that was killed."""

T = TypeVar("T", bound=msgspec.Struct)


class Cache:
    """One registry's part of the folder. Its methods block, and may be called from any thread."""

    def __init__(self, folder: Path, registry: str) -> None:
        """`registry`: its URI. Raises OSError when the folder can't be made."""
        self.folder: Final = folder
        self._blobs: Final = folder / "blobs"
        self._fetches: Final = folder / "fetches"
        key = hashlib.sha256(registry.encode()).hexdigest()[:16]
        self._versions: Final = folder / "versions" / key
        self._known: Final = folder / "known" / key
        for path in (self._blobs, self._fetches, self._versions, self._known):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def blob(self, digest: str) -> Path:
        """Where a file of that digest is, or would be."""
        return self._blobs / digest[:2] / digest

    def has(self, digest: str, size: int) -> bool:
        """A file of that digest is there, as far as its size tells."""
        try:
            return self.blob(digest).lstat().st_size == size
        except OSError:
            return False

    def put(self, file: Path, digest: str) -> None:
        """Take a finished file over, which lies in the same file system. Raises OSError."""
        blob = self.blob(digest)
        blob.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o444)
            # since when it is here, whatever it says of itself
            os.utime(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        file.replace(blob)

    def damaged(self, manifest: Manifest) -> list[str]:
        """The version's files that are missing, or not what they were. Those are removed, to be fetched again."""
        bad = []
        for path, file in manifest.files.items():
            blob = self.blob(file.sha256)
            try:
                good = blob.lstat().st_size == file.size and sha256_of(blob) == file.sha256
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EIO):
                    raise
                good = False
            if not good:
                blob.unlink(missing_ok=True)
                bad.append(path)
        return bad

    # ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def manifest(self, model: str, version: int) -> Manifest | None:
        """What was fetched of a version; None: nothing, or it can't be read."""
        manifest = _read(self._manifest_path(model, version), Manifest)
        if manifest is None or digest_of(manifest.files) != manifest.content:
            return None
        return manifest

    def keep(self, manifest: Manifest) -> None:
        """The version's files are all there. Raises OSError."""
        _write(self._manifest_path(manifest.model, manifest.version), manifest)

    def used(self, manifest: Manifest) -> None:
        """It is served: what was used last goes last."""
        with contextlib.suppress(OSError):
            os.utime(self._manifest_path(manifest.model, manifest.version))

    def known(self, model: str) -> Known:
        """What its references last meant."""
        return _read(self._known / f"{file_name(model)}.json", Known) or Known()

    def remember(self, model: str, known: Known) -> None:
        """For the next start, beside what others remember of the model: it may be served under several names, and by
        several servers. Raises OSError."""
        lock = os.open(self.folder / "known.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            meant = {**self.known(model).meant, **known.meant}
            together = Known(meant=meant, aliases=known.aliases)
            _write(self._known / f"{file_name(model)}.json", together)
        finally:
            os.close(lock)

    # ── on the way ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def fetching(self, model: str, version: int) -> Iterator[Path]:
        """A folder for what a fetch has so far, that nobody else uses meanwhile: it waits for others that do. It stays
        as it is when the fetch fails or is killed. Raises OSError."""
        key = hashlib.sha256(f"{self._versions.name}/{model}/{version}".encode()).hexdigest()[:32]
        folder = self._fetches / key
        lock = os.open(self._fetches / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder.mkdir(mode=0o700, exist_ok=True)
            yield folder
        finally:
            os.close(lock)

    def finished(self, folder: Path) -> None:
        """Nothing of what the fetch had is of use any more."""
        shutil.rmtree(folder, ignore_errors=True)

    def being_fetched(self) -> Iterator[Path]:
        """Folders of the fetches that go on now, here or in another process."""
        for lock in self._fetches.glob("*.lock"):
            with contextlib.suppress(OSError):
                descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield lock.with_suffix("")
                finally:
                    os.close(descriptor)

    def remove_abandoned(self, now_s: float) -> None:
        """What fetches have left that nobody went on with."""
        for lock in self._fetches.glob("*.lock"):
            with contextlib.suppress(OSError):
                _remove_if_abandoned(lock, now_s - SETTLED_S)

    def free_bytes(self) -> int:
        """Of its file system. Raises OSError."""
        return shutil.disk_usage(self.folder).free

    # ── the limit ───────────────────────────────────────────────────────────────────────────────────────────────────

    def manifests(self) -> Iterator[tuple[Path, float, Manifest]]:
        """Of all registries' versions: where, when last used, what. Those that can't be read are left out."""
        for path in (self.folder / "versions").glob("*/*/*.json"):
            try:
                used_at = path.stat().st_mtime
            except FileNotFoundError:
                continue
            if (manifest := _read(path, Manifest)) is not None:
                yield path, used_at, manifest

    def all_known(self) -> Iterator[tuple[str, Known]]:
        """`MODEL` → what is remembered of it, in all registries, as `KEY/MODEL` has it."""
        for path in (self.folder / "known").glob("*/*.json"):
            if (known := _read(path, Known)) is not None:
                yield f"{path.parent.name}/{path.stem}", known

    def blobs(self) -> dict[str, os.stat_result]:
        """All files, by digest."""
        found = {}
        for path in self._blobs.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.lstat()
        return found

    def _manifest_path(self, model: str, version: int) -> Path:
        return self._versions / file_name(model) / f"{version}.json"


def sha256_of(file: Path) -> str:
    """Of a file's content, never all of it in memory. No link is followed. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """All of it or nothing, also when this process is killed. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _write(path: Path, what: msgspec.Struct) -> None:
    write_atomically(path, msgspec.json.encode(what))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        # a cache may be damaged, and is then made anew
        return None


def file_name(model: str) -> str:
    """A name for a file, whatever the model is called."""
    name = quote(model, safe="").replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:100]}-{hashlib.sha256(model.encode()).hexdigest()}"


def _remove_if_abandoned(lock: Path, before_s: float) -> None:
    folder = lock.with_suffix("")
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists() and folder.stat().st_mtime < before_s:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
