"""Which models need which."""

from __future__ import annotations

import pytest

from penstock.model_config import ConfigDict
from penstock.repository.dependencies import Dependencies, needs_of


def ensemble(*models: str) -> ConfigDict:
    return {"ensemble_scheduling": {"step": [{"model_name": name} for name in models]}}


def known(**needs: str) -> Dependencies:
    """`known(e="a b")`: e needs a and b."""
    dependencies = Dependencies()
    for name, models in needs.items():
        dependencies.learn(name, ensemble(*models.split()))
    return dependencies


def test_ensembles_need_the_models_of_their_steps() -> None:
    assert needs_of(ensemble("b", "a", "b")) == ("b", "a")
    assert needs_of({"name": "plain"}) == needs_of(None) == ()


def test_both_ways() -> None:
    dependencies = known(e="a b", f="b")
    assert dependencies.needs("e") == ("a", "b")
    assert dependencies.dependents_of("b") == ("e", "f")
    assert dependencies.dependents_of("e") == dependencies.needs("a") == ()


def test_the_last_configuration_counts() -> None:
    dependencies = known(e="a")
    dependencies.learn("e", ensemble("b"))
    assert (dependencies.dependents_of("a"), dependencies.dependents_of("b")) == ((), ("e",))
    dependencies.learn("e", None)
    assert dependencies.dependents_of("b") == ()


@pytest.mark.parametrize(
    ("needs", "circle"),
    [
        ({"e": "e"}, "e e"),
        ({"e": "a f", "f": "g", "g": "b e"}, "e f g e"),
        ({"e": "f g", "f": "h", "g": "h"}, ""),
        ({"e": "f", "f": "g", "g": "f"}, ""),
    ],
)
def test_circles(needs: dict[str, str], circle: str) -> None:
    assert " ".join(known(**needs).circle("e")) == circle
