"""How a pool treats requests and workers: what a model's configuration and the server's settings say together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from penstock.config import Settings
from penstock.model_config import DynamicBatching, ModelConfig, SequenceBatching
from penstock.repository.own_parameters import OwnParameters
from penstock.repository.queue_terms import queue_policies
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.queue_policy import QueuePolicies
from penstock.scheduling.scheduler import SchedulingPolicy
from penstock.scheduling.sequence_slots import SequencePolicy
from penstock.scheduling.weights import TenantWeights


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """Of one model version."""

    scheduling: SchedulingPolicy
    preserve_ordering: bool = False
    execution_timeout_us: float = 0
    """A worker that is busy with one batch for longer hangs; 0: never."""
    quarantine_us: float = 600_000_000
    """How long a request that kills workers is remembered."""
    sequences: SequencePolicy | None = None
    """Of stateful models."""


def pool_policy(
    config: ModelConfig,
    own: OwnParameters,
    settings: Settings,
    weights: TenantWeights | None = None,
) -> PoolPolicy:
    """The policy of a resolved configuration. `weights`: as they are now; None: those of the settings."""
    batching = config.dynamic_batching
    weights = weights or TenantWeights(settings.tenant_weights)
    return PoolPolicy(
        SchedulingPolicy(
            _batch_policy(config, settings),
            max_queue_us=settings.max_queue_secs * 1e6,
            # sequences fix who goes with whom: there is nothing left to choose; and a stream's end is no latency
            slo_p99_us=0 if config.sequence_batching or config.decoupled else own.slo_p99_us,
            weight_of=weights.of,
        ),
        preserve_ordering=batching is not None and batching.preserve_ordering,
        execution_timeout_us=own.execution_timeout_us or settings.execution_timeout_secs * 1e6,
        quarantine_us=settings.quarantine_secs * 1e6,
        sequences=_sequence_policy(config),
    )


def _batch_policy(config: ModelConfig, settings: Settings) -> BatchPolicy:
    batching = config.dynamic_batching
    alone = BatchPolicy(
        max_batch_bytes=int(settings.max_batch_bytes),
        max_queue_bytes=int(settings.max_queue_bytes),
        max_queue_requests=settings.max_queue_requests,
    )
    if config.sequence_batching is not None:
        return replace(alone, **_sequence_batches(config.sequence_batching, config.max_batch_size))
    if batching is None:
        return alone
    bounded = replace(alone, **_queue_bounds(batching, settings))
    if config.max_batch_size == 0:
        return bounded
    return replace(
        bounded,
        max_rows=config.max_batch_size,
        merge=True,
        preferred_rows=batching.preferred_batch_size,
        max_delay_us=batching.max_queue_delay_microseconds,
    )


def _queue_bounds(batching: DynamicBatching, settings: Settings) -> dict[str, Any]:
    """What `BatchPolicy` has of the queue policies. All levels together may hold what the server lets a model have, or
    more where each of them has a bound of its own."""
    policies: QueuePolicies | None
    policies = given = queue_policies(batching)
    levels = max(1, batching.priority_levels)
    by_default = (levels - len(given.levels)) * given.default.max_requests
    bounds = [own.max_requests for own in given.levels.values()]
    all_bounded = all(bounds) and (by_default > 0 or levels == len(bounds))
    every = [given.default, *given.levels.values()]
    says_more = levels > 1 and any(each.max_requests for each in every)
    if not says_more and not any(each.timeout_us or each.delays for each in every):
        # one bound for one level
        policies = None
    return {
        "max_queue_requests": by_default + sum(bounds)
        if all_bounded
        else settings.max_queue_requests,
        "levels": policies,
    }


def _sequence_policy(config: ModelConfig) -> SequencePolicy | None:
    batching = config.sequence_batching
    if batching is None:
        return None
    if batching.oldest is not None:
        slots = batching.oldest.max_candidate_sequences
        return SequencePolicy(slots, batching.idle_us, direct=False)
    utilization = batching.direct.minimum_slot_utilization if batching.direct else 0.0
    slots = max(1, config.max_batch_size)
    return SequencePolicy(slots, batching.idle_us, minimum_utilization=utilization)


def _sequence_batches(batching: SequenceBatching, max_batch_size: int) -> dict[str, Any]:
    """What `BatchPolicy` has of it."""
    oldest, direct = batching.oldest, batching.direct
    strategy = oldest or direct
    return {
        "max_rows": max(1, max_batch_size),
        "merge": max_batch_size > 0,
        "preferred_rows": oldest.preferred_batch_size if oldest else (),
        "max_delay_us": strategy.max_queue_delay_microseconds if strategy else 0,
    }
