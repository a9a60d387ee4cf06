"""What a request's parameters `priority` and `timeout` mean for its model: Triton's schedule policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.model_config import DynamicBatching, ModelConfig
from penstock.model_config import QueuePolicy as ModelQueuePolicy
from penstock.scheduling.queue_policy import QueuePolicies, QueuePolicy
from penstock.types import Parameter


class QueueTerms(NamedTuple):
    """Of one request."""

    level: int
    timeout_us: int | None = None
    """Within which it is to be answered."""
    queue_timeout_us: int | None = None
    """After which it is late, and runs behind the others of its level."""


class QueueTermsReader:
    """Reads them, as the model's configuration says."""

    def __init__(self, config: ModelConfig) -> None:
        batching = config.dynamic_batching or DynamicBatching()
        self._levels = max(batching.priority_levels, 1)
        self._default_level = max(batching.default_priority_level, 1)
        self._policies = queue_policies(batching)

    def read(self, parameters: Mapping[str, Parameter]) -> QueueTerms:
        """As in Triton, what is no level of this model is its default one.

        A time-out is the client's own and always holds, but for one case: where the level's policy has a time-out that
        clients may not override, there it means nothing. Where the policy delays the late, it says when one is late.
        """
        level = self._level(parameters.get("priority", 0))
        timeout_us = _microseconds(parameters.get("timeout", 0))
        policy = self._policies.of(level)
        if timeout_us is None or (policy.timeout_us and not policy.allows_override):
            return QueueTerms(level)
        if policy.delays and policy.allows_override:
            return QueueTerms(level, queue_timeout_us=timeout_us)
        return QueueTerms(level, timeout_us)

    def _level(self, priority: Parameter) -> int:
        known = isinstance(priority, int) and 1 <= priority <= self._levels
        return int(priority) if known else self._default_level


def queue_policies(batching: DynamicBatching) -> QueuePolicies:
    """What the configuration says of each level. Triton's levels are bounded one by one; so are these."""
    own = batching.priority_queue_policy if batching.priority_levels else {}
    return QueuePolicies(
        _policy(batching.default_queue_policy),
        {int(level): _policy(policy) for level, policy in own.items()},
    )


def _policy(given: ModelQueuePolicy) -> QueuePolicy:
    return QueuePolicy(
        timeout_us=given.default_timeout_microseconds,
        delays=given.timeout_action == "DELAY",
        max_requests=given.max_queue_size,
        allows_override=given.allow_timeout_override,
    )


def _microseconds(timeout: Parameter) -> int | None:
    return timeout if isinstance(timeout, int) and timeout > 0 else None
