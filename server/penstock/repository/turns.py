"""The instances of a pool where a rate limiter says when they may run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.devices.placement import Placement
from penstock.model_config import ConfigDict
from penstock.rate_limit_config import Resource
from penstock.scheduling.rate_limiter import Member, RateLimiter
from penstock.scheduling.resources import GLOBAL, Needs
from penstock.workers.instance import Instance
from penstock.workers.request import PendingRequest


class Turns:
    """Of one model version, from before its load to its end."""

    def __init__(
        self,
        limiter: RateLimiter,
        model: str,
        config: ConfigDict,
        placements: Sequence[Placement] = (),
    ) -> None:
        """`placements`: of its instances; none: all are on the CPU. Raises ConfigError where some instance could never
        run."""
        self._limiter = limiter
        self._needs = needs_of(config, placements)
        self._members: dict[Instance, Member] = {}
        self._urgent: dict[PendingRequest, None] = {}
        """Requests that instances of other models wait for."""
        self.wake: Callable[[], None] = lambda: None
        """Called when the turn of an instance has come."""
        limiter.admit(self, model, self._needs)

    def join(self, instance: Instance, index: int) -> None:
        """An instance takes part from now on."""
        needs = self._needs[min(index, len(self._needs) - 1)]
        self._members[instance] = Member(needs, lambda: self.wake())

    def leave(self, instance: Instance) -> None:
        """It is gone: others get what it held."""
        member = self._members.pop(instance, None)
        if member is not None:
            self._limiter.leave(member)

    def close(self) -> None:
        """All are."""
        for instance in list(self._members):
            self.leave(instance)
        self._limiter.dismiss(self)

    def expect(self, request: PendingRequest) -> None:
        """A request is queued. Where an instance of another model waits for it, that one, or one that waits for it,
        holds resources meanwhile. So it gets its own whatever there is: else all might wait for each other for ever."""
        if request.is_held_for:
            self._urgent[request] = None

    def may_take(self, instance: Instance) -> bool:
        """Whether the instance may be given a batch now; if not, `wake` is called when it may."""
        while self._urgent and next(iter(self._urgent)).done:
            del self._urgent[next(iter(self._urgent))]
        at_once = bool(self._urgent) and instance.idle
        return self._limiter.ask(self._members[instance], at_once=at_once)

    def took(self, instance: Instance, batch: Sequence[PendingRequest]) -> None:
        """It was given the batch, or found that there is none."""
        member = self._members[instance]
        if not batch:
            self._limiter.withdraw(member)
            return
        self._limiter.began(member)
        if self._urgent:
            for request in batch:
                self._urgent.pop(request, None)

    def take_at_once(self, instance: Instance) -> None:
        """An idle instance runs now, whatever there is: another one holds resources until it has."""
        self._limiter.ask(self._members[instance], at_once=True)
        self._limiter.began(self._members[instance])

    def ended(self, instance: Instance, *, more: bool) -> None:
        """A batch of it has ended, or could not be sent. `more`: there may be another one for it."""
        if instance in self._members:
            self._limiter.ended(self._members[instance], more=more)

    def withdraw(self) -> None:
        """Nothing waits for any instance."""
        for member in self._members.values():
            self._limiter.withdraw(member)

    def explain(self) -> dict[str, Any]:
        """What it knows, for a person."""
        resources = sorted({each for needs in self._needs for each in needs.resources})
        return {
            "resources": [self._resource(each) for each in resources],
            "instances": [
                {
                    "priority": member.needs.priority,
                    "needs": {each.name: n for each, n in member.needs.resources.items()},
                    "holds": member.holds,
                    "waits": self._limiter.waits(member),
                }
                for member in self._members.values()
            ],
        }

    def _resource(self, resource: Resource) -> dict[str, Any]:
        held, count = self._limiter.counts(resource)
        device = None if resource.device == GLOBAL else resource.device
        return {"name": resource.name, "device": device, "held": held, "count": count}


def needs_of(config: ConfigDict, placements: Sequence[Placement] = ()) -> list[Needs]:
    """What each instance of a configuration needs, in the order of their numbers."""
    groups = config.get("instance_group") or [{}]
    if not placements:
        return [_needs(group, 0) for group in groups for _ in range(group.get("count") or 1)]
    # without GPUs, all is device 0, as in Triton
    return [
        _needs(groups[each.group], 0 if each.gpu is None else each.gpu.index) for each in placements
    ]


def _needs(group: dict[str, Any], device: int) -> Needs:
    limiter = group.get("rate_limiter") or {}
    resources = {
        Resource(each["name"], GLOBAL if each.get("global") else device): each.get("count", 0)
        for each in limiter.get("resources") or []
    }
    return Needs(resources, limiter.get("priority") or 1)
