"""Triton's rate limiter: an instance runs when the resources that it needs are free, whatever models hold them.

Whose turn it is: start-time fair queueing, as among tenants. Each instance has a tag, which grows by its priority with
each batch, and the smallest is next; who had nothing to do starts where the others are. Who finds too little free is
overtaken by those that need less or something else, so that nothing lies idle; but not for ever: after `PATIENCE` times
what becomes free is kept for it. All of what an instance needs is taken at once, so that two never wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from penstock.rate_limit_config import Resource
from penstock.scheduling.resources import Needs, Supply

PATIENCE: Final = 8
"""How often an instance is overtaken by others that take of what it needs."""


class Member:
    """One instance."""

    __slots__ = ("batches", "holds", "needs", "overtaken", "tag", "wake")

    def __init__(self, needs: Needs, wake: Callable[[], None]) -> None:
        self.needs = needs
        self.wake = wake
        """Its turn has come: it holds what it needs."""
        self.tag = 0.0
        self.holds = False
        self.batches = 0
        """That it was given and that have not ended."""
        self.overtaken = 0


class RateLimiter:
    """One a gateway."""

    def __init__(self, said: Mapping[Resource, int] | None = None) -> None:
        self._supply = Supply(said or {})
        self._waiting: dict[Member, None] = {}
        self._held: Counter[Resource] = Counter()
        self._now = 0.0
        """The tag of whose turn was last."""

    # ── who there is ────────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, owner: Hashable, model: str, needs: Sequence[Needs]) -> None:
        """A model whose instances need that is to be loaded. Raises ConfigError where one of them could never run."""
        self._supply.admit(owner, model, needs)

    def dismiss(self, owner: Hashable) -> None:
        """It is gone."""
        self._supply.leave(owner)

    def leave(self, member: Member) -> None:
        """An instance is gone, whatever it did."""
        self._waiting.pop(member, None)
        member.batches = 0
        self._free(member)
        self._grant()

    # ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, member: Member, *, at_once: bool = False) -> bool:
        """Whether the instance may be given a batch now. If not, it waits for its turn, but for one that is busy: that
        has to end first, for others wait for what it holds. `at_once`: its turn is now, even if there is too little."""
        if member.holds or not member.needs.resources:
            return at_once or not member.batches or not self._is_wanted(member)
        self._wait(member)
        if at_once:
            self._hold(member)
        else:
            self._grant(member)
        return member.holds

    def began(self, member: Member) -> None:
        """It was given a batch."""
        member.batches += 1
        member.tag += member.needs.priority

    def ended(self, member: Member, *, more: bool) -> None:
        """A batch has ended. `more`: it would run another one."""
        member.batches -= 1
        if not member.batches:
            self._free(member)
            if more and member.needs.resources:
                self._wait(member)
            self._grant()

    def withdraw(self, member: Member) -> None:
        """It has nothing to run after all."""
        self._waiting.pop(member, None)
        if member.holds and not member.batches:
            self._free(member)
            self._grant()

    # ── asked about ─────────────────────────────────────────────────────────────────────────────────────────────────

    def waits(self, member: Member) -> bool:
        """Whether its turn has yet to come."""
        return member in self._waiting

    def counts(self, resource: Resource) -> tuple[int, int]:
        """How much of it is held, and how much there is."""
        return self._held[resource], self._supply.counts.get(resource, 0)

    # ── whose turn ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _grant(self, asking: Member | None = None) -> None:
        """Give what is free to those that wait, in the order of their turns."""
        kept: Counter[Resource] = Counter()
        blocked: list[Member] = []
        for member in sorted(self._waiting, key=lambda each: each.tag):
            if not self._fits(member, kept):
                blocked.append(member)
                if member.overtaken >= PATIENCE:
                    kept.update(member.needs.resources)
                continue
            self._hold(member)
            for other in blocked:
                other.overtaken += not other.needs.resources.keys().isdisjoint(
                    member.needs.resources
                )
            if member is not asking:
                member.wake()

    def _fits(self, member: Member, kept: Counter[Resource]) -> bool:
        counts = self._supply.counts
        return all(
            self._held[resource] + kept[resource] + count <= counts[resource]
            for resource, count in member.needs.resources.items()
        )

    def _is_wanted(self, member: Member) -> bool:
        """Whether others wait for something that it holds."""
        own = member.needs.resources.keys()
        return any(not own.isdisjoint(other.needs.resources) for other in self._waiting)

    # ── books ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, member: Member) -> None:
        if member not in self._waiting:
            member.tag = max(member.tag, self._now)
            member.overtaken = 0
            self._waiting[member] = None

    def _hold(self, member: Member) -> None:
        del self._waiting[member]
        member.holds = True
        self._now = max(self._now, member.tag)
        self._held.update(member.needs.resources)

    def _free(self, member: Member) -> None:
        if member.holds:
            member.holds = False
            self._held.subtract(member.needs.resources)
