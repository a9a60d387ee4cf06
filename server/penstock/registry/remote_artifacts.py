"""A version's files wherever MLflow can read them: behind its tracking server, or in a storage service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from penstock.errors import LinkOutside
from penstock.registry.artifact_paths import MAX_DEPTH, MAX_FILES, check_path, is_pythons_own
from penstock.registry.cache import sha256_of


class RemoteArtifacts:
    """Those of one of MLflow's artifact repositories, which writes what comes into files as it comes."""

    def __init__(self, repository: Any, asking: Callable[[], AbstractContextManager[None]]) -> None:
        """`asking`: turns MLflow's errors into ours."""
        self._repository: Final = repository
        self._asking: Final = asking

    def files(self) -> dict[str, int | None]:
        """Path → size, where it says. Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        with self._asking():
            return dict(self._walk(None, MAX_DEPTH))

    def copy(self, path: str, target: Path) -> str:
        """Have the file as `target`. Returns its SHA-256. Raises NotFound, Unavailable, LoadFailed, OSError."""
        check_path(path)
        folder = Path(tempfile.mkdtemp(prefix="file-", dir=target.parent))
        try:
            with self._asking():
                self._repository.download_artifacts(path, str(folder))
            # not where it says that it is: it is believed no more than its answers
            (folder / path).rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return sha256_of(target)

    def _walk(self, folder: str | None, depth: int) -> Iterator[tuple[str, int | None]]:
        if depth == 0:
            raise LinkOutside(f"{folder or '':.200}: over {MAX_DEPTH} folders deep")
        for count, entry in enumerate(self._repository.list_artifacts(folder)):
            if count >= MAX_FILES:
                raise LinkOutside(f"over {MAX_FILES} files")
            check_path(entry.path)
            if not entry.path.startswith(f"{folder}/" if folder else ""):
                raise LinkOutside(f"{entry.path[:200]!a} is not in the folder {folder!a}")
            if is_pythons_own(entry.path):
                continue
            if entry.is_dir:
                yield from self._walk(entry.path, depth - 1)
            else:
                yield entry.path, None if entry.file_size is None else int(entry.file_size)
