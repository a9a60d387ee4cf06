"""Copies a model version into a private folder, and verifies it on the way: what is verified is what lies there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from penstock.errors import (
    ContentChanged,
    FileAdded,
    FileDamaged,
    FileMissing,
    NotEncrypted,
    PickleRefused,
)
from penstock.trust.folder import OpenFolder
from penstock.trust.kek import KeyRing
from penstock.trust.manifest import Manifest
from penstock.trust.pickles import find_pickle, is_damage
from penstock.trust.release import FILENAME
from penstock.trust.sealed import CHUNK_BYTES, SUFFIX, unsealed
from penstock.trust.staging import Draft

if TYPE_CHECKING:
    from hashlib import _Hash

SIGNATURE: Final = "model.sig"
"""In the version's folder, or in the model's."""


@dataclass(frozen=True, slots=True)
class Copying:
    """What is asked of the files of one version."""

    model: str
    version: int
    ring: KeyRing
    manifest: Manifest | None = None
    """None: nobody need have signed."""
    encrypted: bool = False
    """The version's own files have to be."""
    pickles: bool = False
    """They may hold any."""

    def into(self, draft: Draft, folder: OpenFolder) -> tuple[int, int]:
        """Copy all files. Returns how many they are, and their bytes. Raises Untrusted, OSError."""
        expected = {} if self.manifest is None else self.manifest.of_version(self.version)
        algorithm = "sha256" if self.manifest is None else self.manifest.algorithm
        draft.make_folder(draft.model_dir / str(self.version))
        seen: set[str] = set()
        nbytes = 0
        for stored, source in folder.files(self.version, self._skipped):
            path = stored.removesuffix(SUFFIX)
            if path in seen:
                raise FileAdded(f"{path!a} is there twice: in plain, and encrypted")
            seen.add(path)
            self._check_place(stored, path, expected, draft)
            digest = hashlib.new(algorithm)
            with draft.create(path) as target:
                nbytes += _copy(self._content(stored, path, source), target, digest)
                if self.manifest is not None and digest.digest() != expected[path]:
                    raise ContentChanged(f"{path!a} is not what was signed: it was changed or cut")
                self._check_pickle(target, path)
        if missing := sorted(expected.keys() - seen):
            raise FileMissing(f"{missing[0]!a} was signed and is not there")
        return len(seen), nbytes

    def _skipped(self, stored: str) -> bool:
        if stored in (SIGNATURE, f"{self.version}/{SIGNATURE}"):
            return True
        # what is not copied is not loaded either
        return self.manifest is not None and self.manifest.ignores(stored)

    def _check_place(
        self, stored: str, path: str, expected: Mapping[str, bytes], draft: Draft
    ) -> None:
        if self.manifest is not None and path not in expected:
            raise FileAdded(f"{path!a} is there and was not signed")
        if stored != path and not draft.in_memory:
            raise FileAdded(f"{stored!a} has come while the model was read")
        own = path.startswith(f"{self.version}/") and path != f"{self.version}/{FILENAME}"
        if self.encrypted and own and stored == path:
            raise NotEncrypted(f"{path!a} lies there in plain; the policy asks for encrypted files")

    def _content(self, stored: str, path: str, source: BinaryIO) -> Iterator[bytes]:
        if stored != path:
            return unsealed(source, self.ring, self.model, path)
        return iter(lambda: source.read(CHUNK_BYTES), b"")

    def _check_pickle(self, target: BinaryIO, path: str) -> None:
        if not self.pickles and (why := find_pickle(target, path)):
            raise refused_pickle(path, why)


def refused_pickle(path: str, why: str) -> PickleRefused | FileDamaged:
    """The error of what `find_pickle` has found."""
    if is_damage(why):
        return FileDamaged(f"{path!a} is damaged or cut: {why}; expected the whole file")
    return PickleRefused(
        f"{path!a} is or holds a pickle, which runs any code when it is read: {why}; "
        "expected another format, or the model's name in artifacts.allow_pickle (--artifacts-allow-pickle)"
    )


def _copy(chunks: Iterator[bytes], target: BinaryIO, digest: _Hash) -> int:
    nbytes = 0
    for chunk in chunks:
        digest.update(chunk)
        target.write(chunk)
        nbytes += len(chunk)
    target.flush()
    return nbytes
