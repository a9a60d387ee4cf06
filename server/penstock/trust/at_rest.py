"""Encrypts and decrypts the files of model versions where they lie."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from penstock.errors import InvalidRequest
from penstock.trust.copying import SIGNATURE
from penstock.trust.kek import KeyRing
from penstock.trust.release import FILENAME
from penstock.trust.sealed import SUFFIX, rewrap, seal, unsealed

IN_PLAIN: Final = (SIGNATURE, FILENAME)
"""What is read before anything is decrypted, and tells nothing of the model."""


def encrypt_version(model_dir: Path, version: int, ring: KeyRing) -> int:
    """Encrypt all files of the version. Returns how many there were. Raises OSError, InvalidRequest."""
    if not ring.keys:
        raise InvalidRequest("there is no key-encryption key to encrypt with")
    count = 0
    for file in _files(model_dir, version):
        if file.suffix == SUFFIX or _name(model_dir, file) in _in_plain(version):
            continue
        path = _name(model_dir, file)
        _replace(
            file,
            file.with_name(file.name + SUFFIX),
            lambda source, target, path=path: seal(  # type: ignore[misc]
                source, target, ring.keys[0], model_dir.name, path
            ),
        )
        count += 1
    return count


def decrypt_version(model_dir: Path, version: int, ring: KeyRing) -> int:
    """Decrypt all files of the version. Returns how many there were. Raises Untrusted, OSError."""
    count = 0
    for file in _files(model_dir, version):
        if file.suffix != SUFFIX:
            continue
        plain = file.with_name(file.name.removesuffix(SUFFIX))
        path = _name(model_dir, plain)
        _replace(
            file,
            plain,
            lambda source, target, path=path: target.writelines(  # type: ignore[misc]
                unsealed(source, ring, model_dir.name, path)
            ),
        )
        count += 1
    return count


def rewrap_version(model_dir: Path, version: int, ring: KeyRing) -> int:
    """Have the first key of the ring open all files. Returns how many another one did. Raises Untrusted, OSError."""
    count = 0
    for path in _files(model_dir, version):
        if path.suffix != SUFFIX:
            continue
        times = path.stat()
        with path.open("r+b") as file:
            changed = rewrap(file, ring, _name(model_dir, path))
        # what is in it is the same: no server need load it anew
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        count += changed
    return count


def _files(model_dir: Path, version: int) -> Iterator[Path]:
    for folder, folders, names in os.walk(model_dir / str(version)):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                raise InvalidRequest(
                    f"{path} is a symbolic link, or no file; expected the file itself"
                )
            yield path


def _name(model_dir: Path, file: Path) -> str:
    return file.relative_to(model_dir).as_posix()


def _in_plain(version: int) -> tuple[str, ...]:
    return tuple(f"{version}/{name}" for name in IN_PLAIN)


def _replace(old: Path, new: Path, convert: Callable[[BinaryIO, BinaryIO], object]) -> None:
    """Make the new file of the old one, which is removed when the new one is whole."""
    if new.exists():
        raise InvalidRequest(f"{new} is there already")
    descriptor, name = tempfile.mkstemp(dir=new.parent, prefix=f".{new.name}-")
    try:
        with open(descriptor, "wb") as target, old.open("rb") as source:
            convert(source, target)
            target.flush()
            os.fchmod(descriptor, old.stat().st_mode & 0o777)
            os.fsync(descriptor)
        os.replace(name, new)
    except BaseException:
        os.unlink(name)
        raise
    old.unlink()
