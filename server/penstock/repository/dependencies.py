"""Which models need which others: ensembles need those of their steps."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.model_config import ConfigDict


def needs_of(config: ConfigDict | None) -> tuple[str, ...]:
    """Names of the models that one of this configuration sends requests to, each once."""
    steps = (config or {}).get("ensemble_scheduling", {}).get("step", ())
    return tuple(dict.fromkeys(step["model_name"] for step in steps))


class Dependencies:
    """What each model needs by the configuration that was read last."""

    def __init__(self) -> None:
        self._needs: dict[str, tuple[str, ...]] = {}

    def learn(self, name: str, config: ConfigDict | None) -> None:
        """The model's configuration was read."""
        needs = needs_of(config)
        if needs:
            self._needs[name] = needs
        else:
            self._needs.pop(name, None)

    def needs(self, name: str) -> tuple[str, ...]:
        """What the model needs itself, in the order of its steps."""
        return self._needs.get(name, ())

    def dependents_of(self, name: str) -> tuple[str, ...]:
        """Who needs the model itself."""
        return tuple(other for other, needs in self._needs.items() if name in needs)

    def circle(self, name: str) -> Sequence[str]:
        """The way from the model through those that it needs back to itself; empty: there is none."""
        ways: list[tuple[str, ...]] = [(name,)]
        seen: set[str] = set()
        while ways:
            way = ways.pop(0)
            for need in self.needs(way[-1]):
                if need == name:
                    return (*way, name)
                if need not in seen:
                    seen.add(need)
                    ways.append((*way, need))
        return ()
