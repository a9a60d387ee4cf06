"""What was made of models, kept on disk for the next load: engines, optimised graphs, compiled kernels.

One folder a kind, of this user alone. An entry's file name ends in the digest of its content, so that one rename makes
it whole, and what is damaged shows. Whoever calls puts all that the content depends on into the key.

Nothing fails because of the cache: without a place that can be written, and has room, folders are temporary ones of
this process. That is told once a process.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from penstock.locked_folder import locked_folder, remove_abandoned

GIB: Final = 1 << 30
LIMIT_BYTES: Final = 16 * GIB
"""Of one kind. The entries that were used longest ago go."""

LEAST_ROOM_BYTES: Final = 16 << 20
"""Libraries that write into a folder themselves take a full disk for a reason to fail."""

_KEY_BYTES: Final = 20
_PRIVATE: Final = 0o700
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_UNFINISHED: Final = ".new-"
_ABANDONED_S: Final = 86_400
"""A draft this old has no writer any more."""

log = logging.getLogger(__name__)


def folder(kind: str) -> Path:
    """The folder of a kind: `$XDG_CACHE_HOME/penstock/KIND`, else `~/.cache/penstock/KIND`, else a temporary one of
    this process. Raises OSError where no folder at all can be written."""
    try:
        return _roomy(_usable(_usable(_home() / "penstock") / kind))
    except OSError as error:
        path = _usable(_temporary() / kind)
        _tell_once(f"{error.filename}: {error.strerror}")
        return path


def places(kind: str) -> Iterator[Path]:
    """Where entries of a kind may lie, whether or not there is room for more. Nothing is made, and nothing told: most
    models need no cache."""
    with contextlib.suppress(OSError):
        yield _checked(_checked(_home() / "penstock") / kind)
    if _temporary.cache_info().currsize:
        with contextlib.suppress(OSError):
            yield _checked(_temporary() / kind)


def key_of(*parts: object) -> str:
    """The key of what depends on `parts`: their text, in this order."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        text = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()


def find(kind: str, key: str) -> Path | None:
    """The file of an entry, if it is there, is this user's, and is whole. What is damaged is removed. It may be gone by
    the time that it is opened, where others put more than there is room for."""
    for place in places(kind):
        with contextlib.suppress(OSError):
            for path in sorted(place.glob(f"{key}.*")):
                if _is_whole(path):
                    os.utime(path)  # it was used
                    return path
                log.warning("%s is damaged, and removed", path)
                path.unlink(missing_ok=True)
    return None


def get(kind: str, key: str) -> bytes | None:
    """The content of an entry, as `find`."""
    path = find(kind, key)
    if path is not None:
        with contextlib.suppress(OSError):
            return path.read_bytes()
    return None


def put(kind: str, key: str, content: bytes, limit_bytes: int = LIMIT_BYTES) -> Path | None:
    """Keep an entry, as `make`."""
    return make(kind, key, lambda path: _write(path, content), limit_bytes)


def make(
    kind: str, key: str, write: Callable[[Path], object], limit_bytes: int = LIMIT_BYTES
) -> Path | None:
    """Keep an entry whose file is written by `write`, at a path that is not there yet. Several processes may do so at
    once. None: it can't be kept, which is logged. Raises what `write` does, but OSError."""
    try:
        parent = folder(kind)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=parent) as unfinished:
            draft = Path(unfinished) / "entry"
            write(draft)
            draft.chmod(0o600)
            path = parent / f"{key}.{_digest(draft)}"
            draft.replace(path)
        with contextlib.suppress(OSError):
            # what is whole stays, whatever others do there meanwhile
            _make_room(parent, path, limit_bytes)
    except OSError as error:
        _tell_failed(kind, str(error))
        return None
    return path


def holds_secrets(model_dir: Path) -> bool:
    """Whether a model's folder is a copy of decrypted files (`trust/staging.py`): nothing made of them may come onto a
    disk in plain. A copy that doesn't say counts as one."""
    description = model_dir.parent.parent / "staged.json"
    try:
        return msgspec.json.decode(description.read_bytes(), type=_Staged).encrypted
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError):
        return True


class _Staged(msgspec.Struct, frozen=True):
    encrypted: bool = True


def _home() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # as the XDG specification says: relative ones don't count
    return given if given.is_absolute() else Path(os.path.expanduser("~")) / ".cache"


def _usable(path: Path) -> Path:
    """Make the folder. Raises OSError unless this user, and no other, can write it."""
    if not path.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is no home folder", str(path))
    path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    return _checked(path)


def _roomy(path: Path) -> Path:
    """Raises OSError where next to nothing can be written any more."""
    found = os.statvfs(path)
    # some file systems don't count files
    if found.f_bavail * found.f_frsize < LEAST_ROOM_BYTES or (found.f_files and not found.f_favail):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return path


def _checked(path: Path) -> Path:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it is no folder of this user", str(path))
    if found.st_mode & _OTHERS_WRITE:
        raise PermissionError(errno.EPERM, "others can write it", str(path))
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it can't be written", str(path))
    return path


@cache
def _temporary() -> Path:
    """One for the life of this process. Raises OSError."""
    parent = Path(tempfile.gettempdir())
    prefix = f"penstock-cache-{os.getuid()}-"
    remove_abandoned(parent, prefix)
    path = parent / f"{prefix}{os.getpid()}"
    stack = contextlib.ExitStack()
    stack.enter_context(locked_folder(path))
    atexit.register(stack.close)
    return path


@cache
def _tell_once(why: str) -> None:
    log.warning(
        "what is made of models is lost when this process ends, for it can't be kept: %s", why
    )


@cache
def _tell_failed(kind: str, why: str) -> None:
    log.warning("the cache of %s keeps nothing: %s", kind, why)


def _is_whole(path: Path) -> bool:
    found = path.lstat()
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & _OTHERS_WRITE
        and path.suffix == f".{_digest(path)}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _make_room(parent: Path, newest: Path, limit_bytes: int) -> None:
    """Remove entries, those first that were used longest ago, until the rest fits; never the newest."""
    total = newest.stat().st_size
    for found, path in sorted(_others(parent, newest), key=lambda other: -other[0].st_mtime):
        if stat.S_ISREG(found.st_mode):
            total += found.st_size
            if total > limit_bytes:
                path.unlink(missing_ok=True)
        elif path.name.startswith(_UNFINISHED) and time.time() - found.st_mtime > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _others(parent: Path, newest: Path) -> Iterator[tuple[os.stat_result, Path]]:
    for path in parent.iterdir():
        if path != newest:
            with contextlib.suppress(FileNotFoundError):
                yield path.lstat(), path
