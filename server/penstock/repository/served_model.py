"""One version of one model: its configuration, signature, labels, statistics, and the pool that runs it."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock import model_config
from penstock.backends.hidden_tensors import without
from penstock.config import Settings
from penstock.devices.discovery import NO_DEVICES, Devices
from penstock.errors import LoadFailed, PenstockError
from penstock.image_config import as_clients_see, image_names
from penstock.model_config import ConfigDict, ModelConfig
from penstock.padding_config import padding_of
from penstock.repository.config_check import check_complete
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.instance_starter import InstanceStarter
from penstock.repository.labels import read_labels
from penstock.repository.model_pool import Calls, ModelPool
from penstock.repository.own_parameters import own_parameters
from penstock.repository.pool import Pool
from penstock.repository.pool_policy import pool_policy
from penstock.repository.response_cache import ResponseCache, cache_for, inner_policy, with_cache
from penstock.repository.sequence_pool import SequencePool
from penstock.repository.signature import Signature
from penstock.repository.streaming_pool import StreamingPool, StreamingSequencePool
from penstock.repository.turns import Turns
from penstock.repository.uneven_rules import uneven_rules
from penstock.repository.version_digest import VersionDigest
from penstock.scheduling.rate_limiter import RateLimiter
from penstock.scheduling.weights import TenantWeights
from penstock.telemetry.latencies import latencies_of
from penstock.telemetry.statistics import ModelStatistics
from penstock.trust.staging import Staged
from penstock.workers.control import ControlLink
from penstock.workers.instance import Instance

log = logging.getLogger(__name__)

FALLBACK: Final = "penstock_fallback"
"""Among the `parameters` of a configuration that is shown: why the model does not run as it was asked for."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded version. Made by `load`, ended by `close`."""

    name: str
    version: int
    config_dict: ConfigDict
    """Complete, in Triton's full JSON form, but for inputs that the server makes."""
    config: ModelConfig
    signature: Signature
    labels: Mapping[str, Sequence[str]]
    """Output → class names, for the classification extension."""
    statistics: ModelStatistics
    pool: ModelPool
    timeout_us: int | None
    """The server's own bound on a request's time, which is the objective; None: none."""
    staged: Staged | None = None
    """The private copy that it is loaded from; None: it is loaded from where it lies."""
    digest: VersionDigest | None = None
    """Of its files; None: nobody has asked for one, as in tests."""

    @property
    def digest_text(self) -> str:
        """The digest, empty while it is not known."""
        return "" if self.digest is None else self.digest.text

    @property
    def fallback(self) -> str:
        """Why it does not run as it was asked for; empty: it does."""
        return "; ".join(self.statistics.fallbacks().values())

    @property
    def properties(self) -> dict[str, str]:
        """What its metadata says beside Triton's fields."""
        return {"fallback": reason} if (reason := self.fallback) else {}

    @property
    def described(self) -> ConfigDict:
        """The configuration as clients are shown it: with what is worth knowing among its `parameters`."""
        reason = self.fallback
        if not reason:
            return self.config_dict
        told = {FALLBACK: {"string_value": reason}}
        return {**self.config_dict, "parameters": {**self.config_dict["parameters"], **told}}

    @property
    def ready(self) -> bool:
        """Some instance can take work."""
        return self.pool.ready

    @property
    def accepts(self) -> bool:
        """Requests may come: some instance can take them, or one that crashed should soon be back."""
        return self.pool.accepts

    async def close(self, grace_s: float) -> None:
        """Answer what is here for up to `grace_s`, then end the workers: their memory is free after that."""
        self.statistics.ready = False
        try:
            await self.pool.close(grace_s)
        finally:
            if self.staged is not None:
                await asyncio.to_thread(self.staged.close)
        # a pool and its parts know each other: without this their memory waits for a collection that is seldom due
        gc.collect()


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a server have in common."""

    link: ControlLink
    settings: Settings
    on_change: Callable[[], None]
    """Called when a model is ready, or isn't any more."""
    calls: Calls | None = None
    """Answers what models ask of others."""
    limiter: RateLimiter | None = None
    """Gives instances their turns; None: they run when they can."""
    response_cache: ResponseCache | None = None
    """Keeps the answers of the models that ask for that."""
    weights: TenantWeights | None = None
    """Of tenants, as they are now; None: those of the settings."""
    devices: Callable[[], Devices] = lambda: NO_DEVICES
    """The server's GPUs. The first call may take seconds."""


async def load(shared: Shared, model_dir: Path, version: int, config: ConfigDict) -> ServedModel:
    """Load a version on all its instances.

    The first worker reads the model and completes the configuration; the others follow at once.
    Raises LoadFailed or ConfigError with the reason, or Unavailable without memory for slabs.
    """
    limiter = shared.limiter
    first = InstanceStarter(
        shared.link,
        shared.settings,
        model_dir,
        version,
        source=config,
        config=config,
        devices=await asyncio.to_thread(shared.devices),
    )
    placements = first.placements
    turns = None if limiter is None else Turns(limiter, model_dir.name, config, placements)
    try:
        return await _load(shared, first, turns)
    except BaseException:
        if turns is not None:
            turns.close()
        raise


async def _load(shared: Shared, first: InstanceStarter, turns: Turns | None) -> ServedModel:
    settings = shared.settings
    started = time.monotonic()
    model_dir, version, config = first.model_dir, first.version, first.source
    name = model_dir.name
    own = own_parameters(config)
    statistics = ModelStatistics(name, str(version), config.get("metric_tags", {}))
    instance, ready = await first.start(0)
    try:
        # through the message and back: the full form, with all fields, as `GET /config` shows it
        complete = proto_to_config(config_to_proto(model_config.from_json(ready.config_json)))
        check_complete(complete, f"model '{name}'")
        shown = without(complete, padding_of(complete).masks)
        # what clients send: images, where the model takes planes
        parsed = model_config.parse(as_clients_see(shown))
        labels = labels_of(parsed, model_dir)
        statistics.latencies = latencies_of(settings.metrics, complete)
    except PenstockError:
        instance.close()
        raise
    starter = first.completed(complete)
    policy = pool_policy(parsed, own, settings, shared.weights)
    cache = cache_for(complete, shared.response_cache)
    kind = _kind_of_pool(parsed)
    pool = kind(
        inner_policy(policy, cache), statistics, starter, shared.on_change, turns, shared.calls
    )
    pool.add(instance, 0)
    await _add_others(pool, starter)
    if not pool.ready:
        # it would start others in the place of those that ended, for a model that nobody has
        await pool.close(0)
        raise LoadFailed(f"the worker process ended right after loading: {pool.last_crash}")
    statistics.load_duration_s = time.monotonic() - started
    for reason in statistics.fallbacks().values():
        log.warning("model '%s' version %d does not run as asked for: %s", name, version, reason)
    return ServedModel(
        name,
        version,
        shown,
        parsed,
        Signature(parsed, uneven_rules(as_clients_see(complete)), image_names(complete)),
        labels,
        statistics,
        with_cache(pool, policy, cache),
        timeout_us=int(own.slo_p99_us) or None,
    )


def _kind_of_pool(config: ModelConfig) -> type[Pool]:
    if config.sequence_batching is not None:
        return StreamingSequencePool if config.decoupled else SequencePool
    return StreamingPool if config.decoupled else Pool


async def _add_others(pool: Pool, starter: InstanceStarter) -> None:
    """Start all instances but the first. When one can't be, the pool is closed and its error raised."""
    others = await asyncio.gather(
        *(starter(index) for index in range(1, len(starter.placements))), return_exceptions=True
    )
    for index, other in enumerate(others, start=1):
        if isinstance(other, Instance):
            pool.add(other, index)
    for other in others:
        if isinstance(other, BaseException):
            await pool.close(0)
            raise other


def labels_of(config: ModelConfig, model_dir: Path) -> dict[str, Sequence[str]]:
    """Output → class names, of those that have a label file."""
    return {
        output.name: read_labels(model_dir, output.label_filename)
        for output in config.output
        if output.label_filename
    }
