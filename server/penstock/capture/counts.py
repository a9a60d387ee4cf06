"""What became of the requests that were to be kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Skipped(StrEnum):
    """Why a request whose turn it was is not kept, which is as it should be."""

    NOT_ALLOWED = "not_allowed"
    """Its tenant has not allowed it."""
    OPTED_OUT = "opted_out"
    """Its client did not want it."""
    TOO_LARGE = "too_large"
    """Its tensors are over `max_record_bytes`."""
    NOT_RECORDED = "not_recorded"
    """The audit log, which has to say that the model's requests are kept, can't be written."""


class Lost(StrEnum):
    """Why a record is lost that should have been kept."""

    QUEUE_FULL = "queue_full"
    """More came than could be written."""
    WRITER_ENDED = "writer_ended"
    """The writer had it in a file that was not complete."""
    NOT_WRITTEN = "not_written"
    """The disk is full, or the folder can't be written."""
    ERROR = "error"
    """A bug of ours."""


@dataclass(slots=True)
class CaptureCounts:
    """Of one gateway; they only rise."""

    sampled: int = 0
    """Requests whose turn it was."""
    records: int = 0
    """Of them, those that are in complete files."""
    files: int = 0
    nbytes: int = 0
    """Of files that are complete."""
    failing: bool = False
    """The writer is away, or can't write."""
    skipped: dict[Skipped, int] = field(default_factory=lambda: dict.fromkeys(Skipped, 0))
    lost: dict[Lost, int] = field(default_factory=lambda: dict.fromkeys(Lost, 0))
