"""`[rollouts]`: its values are those that roll-outs have by themselves, and wrong ones are named."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from penstock.gateway.rollout_request import RolloutRequest
from penstock.rollouts.plan import MAX_STEPS, RolloutPlan
from penstock.rollouts_config import MAX_STEPS as CONFIGURED_STEPS
from penstock.rollouts_config import RolloutsSettings


def test_defaults_are_those_of_plans() -> None:
    plan = RolloutRequest({"to": 2}).plan(RolloutsSettings(), "m", 1, 2)
    assert plan == RolloutPlan("m", 1, 2)
    assert MAX_STEPS == CONFIGURED_STEPS


def test_a_file_says_off_where_a_request_says_null() -> None:
    settings = RolloutsSettings.model_validate({"guards": {"drift": "off", "error_rate": 0.1}})
    guards = RolloutRequest({"to": 2}).plan(settings, "m", 1, 2).guards
    assert (guards.drift, guards.error_rate) == (None, 0.1)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"steps": ()}, "percentages that rise"),
        ({"steps": (10, 10)}, "percentages that rise"),
        ({"steps": (0.001,)}, "greater than or equal to 0.01"),
        ({"steps": "1,50,101"}, "less than or equal to 100"),
        ({"step_secs": 0}, "greater than 0"),
        ({"follow": {"m": "challenger"}}, "match pattern"),
        ({"guards": {"p99_ratio": 0.5}}, "greater than or equal to 1"),
        ({"guards": {"drift": "none"}}, "'off'"),
        ({"guards": {"drfit": 0.1}}, "drfit"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        RolloutsSettings.model_validate(given)
