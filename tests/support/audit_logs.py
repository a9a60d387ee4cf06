"""Audit logs for tests: written at once, and changed line by line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ByteSize

from penstock.audit.chain import Chain, Entry
from penstock.audit.event import AuditEvent
from penstock.audit.signing import Signer
from penstock.audit_config import SMALLEST_FILE_BYTES, AuditSettings

SMALL = ByteSize(2000)


def settings(folder: Path, **changes: Any) -> AuditSettings:
    """Settings of a log in small files."""
    values = {"folder": folder, "rotate_bytes": ByteSize(SMALLEST_FILE_BYTES), **changes}
    return AuditSettings.model_construct(**{**AuditSettings().model_dump(), **values})


def event(text: str = "", **fields: Any) -> AuditEvent:
    """Somebody's request is refused."""
    given = {"action": "authenticate", "outcome": "refused", "reason": text, **fields}
    return AuditEvent(**given)


def entries(texts: Iterable[str]) -> list[Entry]:
    """One event each."""
    return [("event", 1_700_000_000_000_000_000 + n, event(text)) for n, text in enumerate(texts)]


def write_log(
    folder: Path, groups: Iterable[Iterable[str]], signer: Signer | None = None, **changes: Any
) -> Chain:
    """A log of these events, in small files, closed."""
    chain = Chain(settings(folder, **{"rotate_bytes": SMALL, **changes}), signer)
    for group in groups:
        chain.append(entries(group))
    chain.append([], checkpoint=True)
    return chain


def log_files(folder: Path) -> list[Path]:
    """The log's files, in order."""
    return sorted(folder.glob("audit-*.jsonl"))
