"""What the audit log has done, for metrics. The writer's thread and the event loop each change their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class AuditCounts:
    """One a log."""

    records: int = 0
    """Records that are durable."""
    groups: int = 0
    """Groups that they were made durable in, at the cost of one flush to the disk each."""
    lost: int = 0
    """Events that were not recorded, under the policy `go_on`."""
    failing: bool = False
    """The last group could not be written."""
