"""When an issuer's keys are fetched: no I/O and no clock of its own."""

from __future__ import annotations


class FetchSchedule:
    """At once, then by the interval; earlier when somebody asks, but never twice within the least gap."""

    def __init__(self, interval_s: float, gap_s: float, keep_s: float) -> None:
        self._interval_s, self._gap_s, self._keep_s = interval_s, gap_s, keep_s
        self._tried_at: float | None = None
        self._good_at: float | None = None
        self._next_at = float("-inf")
        self._failures = 0

    def due_at(self) -> float:
        """When the next fetch is due."""
        return self._next_at

    def wake_at(self) -> float:
        """When something is due: a fetch, or the end of the keys that are kept."""
        if self._good_at is None:
            return self._next_at
        return min(self._next_at, self._good_at + self._keep_s)

    def ask(self) -> None:
        """Somebody needs keys that are not there."""
        if self._tried_at is not None:
            self._next_at = min(self._next_at, self._tried_at + self._gap_s)

    def started(self, now: float) -> None:
        """A fetch begins. Whoever asks from now on may have newer keys in mind than it brings."""
        self._tried_at = now
        self._next_at = float("inf")

    def succeeded(self, now: float) -> None:
        """It brought keys."""
        self._good_at, self._failures = now, 0
        self._settle(now + self._interval_s)

    def failed(self, now: float) -> None:
        """It brought none: tried again after the gap, then twice it, … up to the interval."""
        wait_s = min(self._gap_s * 2 ** min(self._failures, 20), self._interval_s)
        self._failures += 1
        self._settle(now + wait_s)

    def _settle(self, next_at: float) -> None:
        # an `ask` during the fetch stands
        self._next_at = min(self._next_at, next_at)

    def are_stale(self, now: float) -> bool:
        """Whether the keys that there are have outlived the time that they are kept."""
        return self._good_at is not None and now >= self._good_at + self._keep_s

    def dropped(self) -> None:
        """The stale keys are no more."""
        self._good_at = None
