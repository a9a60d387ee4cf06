"""What a model's scheduler knows, has decided and does now, as plain values for `penstock models explain`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.scheduling.level import Level
from penstock.scheduling.quarantine import Quarantine
from penstock.scheduling.queue_policy import QueuePolicy, is_late
from penstock.scheduling.scheduler import Scheduler
from penstock.scheduling.slo import Decision, SloController
from penstock.workers.instance import Instance
from penstock.workers.request import PendingRequest


def explain(
    scheduler: Scheduler[PendingRequest],
    instances: Iterable[Instance],
    quarantine: Quarantine,
    now_us: float,
) -> dict[str, Any]:
    """Times in microseconds, or as the key says; keys that have nothing to say are left out."""
    told = {
        "policy": _policy(scheduler),
        "service_curve": [
            {
                "rows": point.rows,
                "median_us": point.median_us,
                "upper_us": point.upper_us,
                "samples": point.samples,
            }
            for point in scheduler.curve.points
        ],
        "queue": _queue(scheduler, now_us),
        "refused": {reason.value: count for reason, count in scheduler.refused.items()},
        "instances": [_instance(scheduler, instance, now_us) for instance in instances],
        "quarantine": [
            {"digest": digest, "reason": reason, "seconds_left": left_s}
            for digest, reason, left_s in quarantine.listing(now_us)
        ],
    }
    if scheduler.slo is not None:
        told["slo"] = _slo(scheduler.slo, scheduler, now_us)
    return told


def _policy(scheduler: Scheduler[PendingRequest]) -> dict[str, Any]:
    policy = scheduler.policy
    told: dict[str, Any] = {
        "max_rows": policy.batch.max_rows,
        "rows_cap": scheduler.batcher.rows_cap,
        "delay_us": scheduler.batcher.delay_us,
        "max_delay_us": policy.batch.max_delay_us,
        "preferred_rows": policy.batch.preferred_rows,
        "max_queue_requests": policy.batch.max_queue_requests,
        "max_queue_bytes": policy.batch.max_queue_bytes,
        "max_queue_us": policy.max_queue_us,
    }
    if policy.batch.levels is not None:
        told["levels"] = [_level_policy(*each) for each in policy.batch.levels.named()]
    return told


def _level_policy(level: str, policy: QueuePolicy) -> dict[str, Any]:
    return {
        "level": level,
        "timeout_us": policy.timeout_us,
        "timeout_action": "DELAY" if policy.delays else "REJECT",
        "allow_timeout_override": policy.allows_override,
        "max_queue_requests": policy.max_requests,
    }


def _queue(scheduler: Scheduler[PendingRequest], now_us: float) -> dict[str, Any]:
    batcher = scheduler.batcher
    return {
        "requests": batcher.requests,
        "rows": batcher.rows,
        "bytes": batcher.nbytes,
        "delayed": batcher.delayed,
        "drain_us": 1e6 * (scheduler.drain_s() or 0.0),
        "levels": [_level(level, now_us) for level in batcher.levels],
    }


def _level(level: Level[PendingRequest], now_us: float) -> dict[str, Any]:
    return {
        "level": int(level.number),
        "late": is_late(level.number),
        "tenants": [
            {
                "tenant": lane.tenant,
                "weight": lane.weight,
                "requests": len(lane),
                "rows": lane.rows,
                "oldest_us": now_us
                - min((r.arrived_ns for r in lane.requests()), default=0) / 1000,
            }
            for lane in level.lanes.values()
        ],
    }


def _instance(
    scheduler: Scheduler[PendingRequest], instance: Instance, now_us: float
) -> dict[str, Any]:
    load = scheduler.loads[instance]
    since_us = scheduler.busy_since_us(instance)
    return {
        "name": f"worker {instance.process.pid}",
        "device": instance.device,
        "state": "idle" if since_us is None else "busy",
        "running_rows": [rows for rows, _ in load.running],
        "busy_us": 0.0 if since_us is None else now_us - since_us,
        "predicted_us": max(0.0, load.free_at_us - now_us) if load.running else 0.0,
    }


def _slo(slo: SloController, scheduler: Scheduler[PendingRequest], now_us: float) -> dict[str, Any]:
    last = slo.decision
    told: dict[str, Any] = {
        "p99_ms": slo.slo_us / 1000,
        "rows_cap": scheduler.batcher.rows_cap,
        "delay_us": scheduler.batcher.delay_us,
        "history": [_decision(decision, now_us) for decision in slo.history],
    }
    if last is not None:
        told["measured_p99_ms"] = last.measured_p99_us / 1000
        told["headroom"] = last.headroom
        told["reason"] = last.reason
    return told


def _decision(decision: Decision, now_us: float) -> dict[str, Any]:
    return {
        "at_s_ago": (now_us - decision.at_us) / 1e6,
        "rows_cap": decision.rows_cap,
        "delay_us": decision.delay_us,
        "measured_p99_ms": decision.measured_p99_us / 1000,
        "reason": decision.reason,
    }
