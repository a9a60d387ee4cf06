"""The digest of a served version's files, computed aside while its workers load: nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock.errors import Unavailable
from penstock.model_digest import digest_of, file_digests

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0


class VersionDigest:
    """Of one version, as it was when it was loaded."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the version's own, of what was verified where anything is asked of it."""
        self._folder = folder
        self.text = ""
        """As `model_digest.py` has it; empty: it is not known yet."""
        self.files: Mapping[str, str] = {}
        """Path → SHA-256 in hex."""
        self.problem = ""
        """Why it won't be known."""
        self._computing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compute it in a thread."""
        self._computing = asyncio.get_running_loop().create_task(self._compute())

    async def known(self) -> str:
        """The digest, when it is there. Raises Unavailable."""
        if self._computing is not None and not self.text:
            await asyncio.wait([self._computing])
        return self.now()

    def now(self) -> str:
        """The digest. Raises Unavailable while it is not known."""
        if self.text:
            return self.text
        if self.problem:
            raise Unavailable(f"the model's digest can't be computed: {self.problem}")
        raise Unavailable("the model's digest is not known yet, try again", RETRY_S)

    async def _compute(self) -> None:
        try:
            files = await asyncio.to_thread(file_digests, self._folder)
        except OSError as error:
            self.problem = error.strerror or type(error).__name__
            log.warning("%s: no digest of it can be computed: %s", self._folder, self.problem)
        else:
            self.files, self.text = files, digest_of(files)
