"""Why the scheduler refuses requests, and what their clients are told."""

from __future__ import annotations

import enum
from typing import Final

from penstock.errors import DeadlineExceeded, PenstockError, Unavailable


class Refusal(enum.Enum):
    """Values of the label `reason` of `penstock_refused_requests`."""

    QUEUE_FULL = "queue_full"
    """As many requests, or bytes, wait as may."""
    QUEUE_TIME = "queue_time"
    """What waits takes longer than anybody may have to wait."""
    TOO_LATE = "too_late"
    """Refused before it ran: it could not have been on time."""
    EXPIRED = "expired"
    """Its time was over while it waited or ran."""
    QUEUE_TIMEOUT = "queue_timeout"
    """It waited for longer than the queue policy of its level allows."""
    QUARANTINED = "quarantined"
    """A request like it has killed workers."""


TIMED_OUT: Final = "Request timeout expired"
"""What the texts of these errors begin with."""


def timed_out(model: str, deadline_is_clients: bool, why: str) -> Unavailable:
    """The error of a request that is not, or would not be, answered in time: DEADLINE_EXCEEDED where its client set
    the time, and Triton's UNAVAILABLE where the server's own policy did. The text is Triton's, for clients look for it.
    """
    reason = f": {why}" if why else ""
    text = f"{TIMED_OUT} for model '{model}'{reason}"
    return DeadlineExceeded(text) if deadline_is_clients else Unavailable(text)


def is_timeout(error: PenstockError) -> bool:
    """Whether it is one of those: another request like that one might have had more time."""
    return isinstance(error, Unavailable) and str(error).startswith(TIMED_OUT)
