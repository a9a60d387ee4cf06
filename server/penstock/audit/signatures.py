"""Whether the signatures in a log hold, and whether their keys are to be believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstock.audit.head import Head
from penstock.audit.lines import Record
from penstock.audit.signing import Verifier

BELIEVED: Final = (
    "signatures were checked by the keys that the log itself names: who could write it could have"
    " put in their own; --public-key says which are to be believed"
)
UNSIGNED: Final = "the log is not signed: who can write its files can write them anew as a whole"


class Signatures:
    """Follows a log's records. `trusted`: none: every key is believed."""

    def __init__(self, trusted: Iterable[Verifier]) -> None:
        self._trusted: Final = {key.id: key for key in trusted}
        self._believes_all: Final = not self._trusted
        self._known: Final[dict[str, Verifier]] = {}
        """Keys that the log has named so far."""
        self._current = ""
        self._complained: Final[set[str]] = set()
        """Keys that are not believed, of which that was said."""
        self.notes: Final[list[str]] = []

    def record(self, record: Record, last: str) -> str:
        """What is wrong with a record's signature; empty: nothing, or it has none. `last`: hash of the one before."""
        if record.kind == "key":
            return self._key(record)
        if record.kind == "checkpoint":
            parts = (record.log, str(record.seq), last)
            return self._problem(record.key, "checkpoint", record.signature, parts)
        return ""

    def believes(self, key: str) -> bool:
        """Whether what the key signs counts. That it does not is said once."""
        return self._verifier(key) is not None

    def head(self, head: Head) -> tuple[str, str]:
        """What is wrong with the head's signature, and what should be known of it."""
        if not head.key:
            if self._believes_all and not self._known:
                return "", UNSIGNED
            return "not signed by a key that is to be believed", ""
        if (key := self._verifier(head.key)) is None:
            return self._unknown(head.key), ""
        if not head.is_signed_by(key):
            return "its signature does not hold", ""
        return "", BELIEVED if self._believes_all else ""

    def _key(self, record: Record) -> str:
        try:
            key = Verifier.from_hex(record.public)
        except ValueError:
            return "not a public key"
        parts = (record.log, record.public)
        if key.id != record.key or not key.signed("key", record.signature, *parts):
            return "the key's own signature does not hold"
        again, self._current = self._current == key.id, key.id
        if not self._is_believed(key, record):
            self._complained.add(key.id)
            return (
                f"key {key.id} is none of those given by --public-key, and none of them vouches for it: what it signs"
                " counts for nothing"
            )
        self._known[key.id] = key
        if again:
            text = "the log was written without its key before this record"
            if not self._believes_all:
                return text
            self.notes.append(f"record {record.seq}: {text}")
        return ""

    def _is_believed(self, key: Verifier, record: Record) -> bool:
        if self._believes_all or key.id in self._trusted or key.id in self._known:
            return True
        voucher = self._known.get(record.endorsed_by) or self._trusted.get(record.endorsed_by)
        return voucher is not None and voucher.signed(
            "endorse", record.endorsement, record.log, record.public
        )

    def _problem(self, key: str, purpose: str, signature: str, parts: tuple[str, ...]) -> str:
        if (verifier := self._verifier(key)) is None:
            return self._unknown(key)
        return "" if verifier.signed(purpose, signature, *parts) else "its signature does not hold"

    def _verifier(self, key: str) -> Verifier | None:
        """The key, where it is believed. One that was given is, though the record that names it may be lost."""
        return self._known.get(key) or self._trusted.get(key)

    def _unknown(self, key: str) -> str:
        """Once a key: a log has many checkpoints."""
        if key in self._complained:
            return ""
        self._complained.add(key)
        return f"signed by key {key[:64]}, and the record that names this key is missing"
