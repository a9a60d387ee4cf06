"""Loads an ensemble: its configuration is checked against the models of its steps, which are there already."""

from __future__ import annotations

import time
from pathlib import Path

from penstock import model_config
from penstock.config import Settings
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict
from penstock.repository.config_check import check_complete
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.ensemble_pool import EnsemblePolicy, EnsemblePool, StepModels
from penstock.repository.nested import NestedCalls
from penstock.repository.own_parameters import own_parameters
from penstock.repository.served_model import ServedModel, labels_of
from penstock.repository.signature import Signature
from penstock.telemetry.latencies import latencies_of
from penstock.telemetry.statistics import ModelStatistics


def load_ensemble(
    models: StepModels,
    calls: NestedCalls,
    settings: Settings,
    model_dir: Path,
    version: int,
    config: ConfigDict,
) -> ServedModel:
    """Raises LoadFailed or ConfigError with the reason."""
    started = time.monotonic()
    name = model_dir.name
    complete = proto_to_config(config_to_proto(config))
    check_complete(complete, f"model '{name}'")
    parsed = model_config.parse(complete)
    own = own_parameters(complete)
    statistics = ModelStatistics(name, str(version), complete["metric_tags"])
    statistics.latencies = latencies_of(settings.metrics, complete)
    policy = EnsemblePolicy(settings.max_queue_requests, int(settings.max_queue_bytes))
    pool = EnsemblePool(complete, policy, statistics, models, calls)
    if pool.problem:
        raise LoadFailed(pool.problem)
    pool.set_labels(labels_of(parsed, model_dir))
    statistics.load_duration_s = time.monotonic() - started
    return ServedModel(
        name,
        version,
        complete,
        parsed,
        Signature(parsed),
        pool.labels,
        statistics,
        pool,
        timeout_us=int(own.slo_p99_us) or None,
    )
