"""What instances need to run, as their models say, and how much there is of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.errors import ConfigError
from penstock.rate_limit_config import EVERY_DEVICE, Resource

GLOBAL: Final = -1
"""The device of resources that there is one store of for all devices."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one instance."""

    resources: Mapping[Resource, int] = field(default_factory=dict)
    priority: int = 1
    """An instance of priority 2 gets half as many turns as one of 1."""


class Supply:
    """How much there is: what was said, else as much as the neediest instance wants."""

    def __init__(self, said: Mapping[Resource, int]) -> None:
        """`said`: with it, what is not in it is not there."""
        self._said = said
        self._needs: dict[Hashable, tuple[str, Sequence[Needs]]] = {}
        self.counts: dict[Resource, int] = {}

    def admit(self, owner: Hashable, model: str, needs: Sequence[Needs]) -> None:
        """Instances of these needs may come. Raises ConfigError, in Triton's words, for those that could never run."""
        for resource, count in _most(needs).items():
            self._check_kind(model, resource)
            available = self._available(resource)
            if available is not None and available < count:
                raise ConfigError(
                    f'Resource count for "{resource.name}" is limited to {available} which will prevent scheduling of '
                    f"one or more model instances, the minimum required count is {count}"
                )
        self._needs[owner] = model, needs
        self._count()

    def leave(self, owner: Hashable) -> None:
        """None of its instances are there any more."""
        self._needs.pop(owner, None)
        self._count()

    def _check_kind(self, model: str, resource: Resource) -> None:
        for other, needs in self._needs.values():
            # the version that it replaces may have had it otherwise
            same = () if other == model else _names(needs)
            if (resource.name, resource.device != GLOBAL) in same:
                raise ConfigError(
                    f'Resource "{resource.name}" is present as both global and device-specific resource in the model '
                    f"configuration: model '{other}' has it otherwise"
                )

    def _available(self, resource: Resource) -> int | None:
        """What was said of it; None: nothing was said of any."""
        if not self._said:
            return None
        name, device = resource
        devices = {device, EVERY_DEVICE}
        return max(
            (
                count
                for said, count in self._said.items()
                if said.name == name and (device == GLOBAL or said.device in devices)
            ),
            default=0,
        )

    def _count(self) -> None:
        most = _most(each for _, needs in self._needs.values() for each in needs)
        available = ((each, self._available(each)) for each in most)
        self.counts = {each: most[each] if n is None else n for each, n in available}


def _most(needs: Iterable[Needs]) -> dict[Resource, int]:
    """The most that any of them wants."""
    most: dict[Resource, int] = {}
    for each in needs:
        for resource, count in each.resources.items():
            most[resource] = max(count, most.get(resource, 0))
    return most


def _names(needs: Iterable[Needs]) -> Iterator[tuple[str, bool]]:
    """Of all resources, and whether they are global."""
    for each in needs:
        yield from ((resource.name, resource.device == GLOBAL) for resource in each.resources)
