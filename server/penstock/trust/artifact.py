"""A version that is to be loaded, and what became of the check of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one check, for metrics and the audit log."""

    model: str
    version: int
    outcome: str
    """`verified`, `decrypted`, or the name of the error."""
    reason: str = ""
    signer: str = ""
    serial: int = 0
    digest: str = ""
    nbytes: int = 0
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version that is to be loaded."""

    model: str
    version: int
    folder: Path
    key: bytes
    """Another one where a file or the configuration is another one."""
    tenant: str = ""
    """Whose load request gives the files; empty: they are on disk."""
