"""Which versions are served."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.repository.version_policy import version_policy


@pytest.mark.parametrize(
    ("policy", "present", "served"),
    [
        (None, [1, 10, 2], (10,)),
        ({}, [1, 10, 2], (10,)),
        ({"latest": {}}, [3, 1], (3,)),
        ({"latest": {"num_versions": 2}}, [1, 10, 2], (2, 10)),
        ({"latest": {"num_versions": 5}}, [2, 1], (1, 2)),
        ({"all": {}}, [3, 1, 2], (1, 2, 3)),
        ({"specific": {"versions": [3, 1, 3]}}, [1, 2, 3], (1, 3)),
        (None, [], ()),
        ({"all": {}}, [], ()),
    ],
)
def test_policies(
    policy: dict[str, Any] | None, present: list[int], served: tuple[int, ...]
) -> None:
    assert version_policy({} if policy is None else {"version_policy": policy}, present) == served


def test_no_configuration_serves_the_latest() -> None:
    assert version_policy(None, (1, 3, 2)) == (3,)


@pytest.mark.parametrize(("present", "found"), [([2, 1], "1, 2"), ([], "none")])
def test_a_missing_version_is_named(present: list[int], found: str) -> None:
    config = {"version_policy": {"specific": {"versions": [7]}}}
    with pytest.raises(ConfigError) as caught:
        version_policy(config, present)
    assert str(caught.value) == (
        f"version_policy.specific asks for version 7; the model's folder has {found}"
    )
