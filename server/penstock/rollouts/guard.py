"""What all guards are to those who ask them."""

from __future__ import annotations

from typing import Protocol

from penstock.rollouts.decisions import GuardReport


class Guard(Protocol):
    """One thing that a candidate may do worse. It counts by itself; here it is asked."""

    @property
    def name(self) -> str:
        """As settings and reports have it."""
        ...

    @property
    def bound(self) -> float:
        """It rolls back when its evidence reaches this."""
        ...

    @property
    def evidence(self) -> float:
        """Against the candidate; 1 is none."""
        ...

    @property
    def windows(self) -> int:
        """How many times it has compared the versions."""
        ...

    def close(self, least: int) -> None:
        """A window is over. One in which either version has had fewer requests than `least` goes on."""
        ...

    def discard(self) -> None:
        """The window is not compared: it ends under other circumstances than it began."""
        ...

    def expect_change(self) -> None:
        """The candidate gets more requests from now on."""
        ...

    def report(self) -> GuardReport:
        """For people."""
        ...
