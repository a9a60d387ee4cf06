"""The day on which each key was last used: noted in memory, written in groups, beside the event loop."""

from __future__ import annotations

import logging
import threading
from typing import Final

from penstock.access.key_table import KeyTable
from penstock.errors import PenstockError

WRITE_S: Final = 10.0
"""From one write to the next: a key is written once a day."""

logger = logging.getLogger(__name__)


class LastUsed:
    """Of the keys of one store. For one thread; it has another one while it writes."""

    def __init__(self, keys: KeyTable) -> None:
        self._keys = keys
        self._known: dict[str, int] = {}
        self._unwritten: dict[str, int] = {}
        self._written_at = 0.0
        self._writer: threading.Thread | None = None

    def note(self, key_id: str, day: int) -> None:
        """It is used today."""
        if self._known.get(key_id) != day:
            self._known[key_id] = self._unwritten[key_id] = day

    def refresh(self, now: float) -> None:
        """Begin to write, when there is something, and it is time."""
        if not self._unwritten or 0 <= now - self._written_at < WRITE_S:
            return
        if self._writer is not None and self._writer.is_alive():
            return
        self._written_at = now
        days, self._unwritten = self._unwritten, {}
        self._writer = threading.Thread(target=self._write, args=(days,), name="keys-last-used")
        self._writer.start()

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer is not None:
            self._writer.join()
        if self._unwritten:
            self._write(self._unwritten)
            self._unwritten = {}

    def _write(self, days: dict[str, int]) -> None:
        try:
            self._keys.note_used(days)
        except PenstockError as error:
            # nobody is refused for it
            logger.warning("when API keys were last used could not be written: %s", error)
