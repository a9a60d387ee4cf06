"""Triton's schedule policy: what `priority` and `timeout` mean for a model, and what its configuration bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.config import Settings
from penstock.model_config import DynamicBatching, ModelConfig
from penstock.repository.own_parameters import OwnParameters
from penstock.repository.pool_policy import pool_policy
from penstock.repository.queue_terms import QueueTerms, QueueTermsReader
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.queue_policy import QueuePolicies, QueuePolicy

pytestmark = pytest.mark.extension("schedule_policy")

DELAY = {"timeout_action": "DELAY", "allow_timeout_override": True}


def config(max_batch_size: int = 8, **batching: Any) -> ModelConfig:
    """A model with this `dynamic_batching`."""
    given = msgspec.convert(batching, DynamicBatching)
    return ModelConfig(name="m", max_batch_size=max_batch_size, dynamic_batching=given)


def read(parameters: dict[str, Any], **batching: Any) -> QueueTerms:
    """A request's terms."""
    return QueueTermsReader(config(**batching)).read(parameters)


def batch_policy(of: ModelConfig) -> BatchPolicy:
    """As its pool has it."""
    return pool_policy(of, OwnParameters(0, 0), Settings()).scheduling.batch


@pytest.mark.parametrize(
    ("priority", "level"), [(None, 2), (0, 2), (1, 1), (2, 2), (3, 3), (4, 2), (2**64 - 1, 2)]
)
def test_what_is_no_level_is_the_default_one(priority: int | None, level: int) -> None:
    parameters = {} if priority is None else {"priority": priority}
    assert read(parameters, priority_levels=3, default_priority_level=2).level == level


def test_without_levels_there_is_one() -> None:
    assert QueueTermsReader(ModelConfig(name="m")).read({"priority": 5}) == QueueTerms(1)
    assert read({"priority": 5}) == QueueTerms(1)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, QueueTerms(1, 500)),
        ({"max_queue_size": 3}, QueueTerms(1, 500)),
        ({"allow_timeout_override": True}, QueueTerms(1, 500)),
        # the model's own time-out, which clients may not change
        ({"default_timeout_microseconds": 900}, QueueTerms(1)),
        (
            {"default_timeout_microseconds": 900, "allow_timeout_override": True},
            QueueTerms(1, 500),
        ),
        ({"timeout_action": "DELAY", "default_timeout_microseconds": 900}, QueueTerms(1)),
        ({"timeout_action": "DELAY"}, QueueTerms(1, 500)),
        (DELAY, QueueTerms(1, queue_timeout_us=500)),
        (DELAY | {"default_timeout_microseconds": 900}, QueueTerms(1, queue_timeout_us=500)),
    ],
)
def test_whose_the_time_is(policy: dict[str, Any], expected: QueueTerms) -> None:
    assert read({"timeout": 500}, default_queue_policy=policy) == expected
    assert read({"timeout": 0}, default_queue_policy=policy) == QueueTerms(1)
    assert read({}, default_queue_policy=policy) == QueueTerms(1)


def test_the_policy_is_the_requests_levels() -> None:
    levels = {
        "priority_levels": 2,
        "default_priority_level": 1,
        "priority_queue_policy": {"2": {"default_timeout_microseconds": 900}},
    }
    assert read({"timeout": 5}, **levels) == QueueTerms(1, 5)
    assert read({"timeout": 5, "priority": 2}, **levels) == QueueTerms(2)


# ── what a queue may hold ───────────────────────────────────────────────────────────────────────────────────────────


def test_no_policy_costs_nothing() -> None:
    assert batch_policy(config()).levels is None
    assert batch_policy(ModelConfig(name="m")).levels is None


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_one_bound_of_one_level_is_the_queues(max_batch_size: int) -> None:
    """Also where it is larger than the server's."""
    policy = batch_policy(config(max_batch_size, default_queue_policy={"max_queue_size": 20_000}))
    assert (policy.max_queue_requests, policy.levels) == (20_000, None)


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_times_hold_with_and_without_batches(max_batch_size: int) -> None:
    policy = batch_policy(
        config(max_batch_size, default_queue_policy={"default_timeout_microseconds": 7})
    )
    assert policy.levels == QueuePolicies(QueuePolicy(timeout_us=7))
    assert policy.merge is (max_batch_size > 0)


def test_levels_are_bounded_one_by_one() -> None:
    policy = batch_policy(
        config(
            priority_levels=3,
            default_priority_level=1,
            default_queue_policy={"max_queue_size": 5},
            priority_queue_policy={"3": {"max_queue_size": 100, "timeout_action": "DELAY"}},
        )
    )
    own = QueuePolicy(max_requests=100, delays=True)
    assert policy.levels == QueuePolicies(QueuePolicy(max_requests=5), {3: own})
    assert policy.max_queue_requests == 110


def test_where_one_level_has_no_bound_the_servers_is_all_levels() -> None:
    policy = batch_policy(
        config(
            priority_levels=2,
            default_priority_level=1,
            priority_queue_policy={"1": {"max_queue_size": 5}},
        )
    )
    assert policy.levels is not None
    assert policy.max_queue_requests == Settings().max_queue_requests


def test_policies_of_levels_that_are_not_there_mean_nothing() -> None:
    policy = batch_policy(config(priority_queue_policy={"2": {"max_queue_size": 5}}))
    assert (policy.levels, policy.max_queue_requests) == (None, Settings().max_queue_requests)
