"""Which models' answers are cached, and how their pools get there."""

from __future__ import annotations

import logging
from dataclasses import replace

from penstock.caching.answer import Kept
from penstock.caching.byte_lru import ByteLru
from penstock.caching.room import Room
from penstock.config import Settings
from penstock.model_config import ConfigDict
from penstock.repository.cached_pool import CachedPool
from penstock.repository.pool import Pool
from penstock.repository.pool_policy import PoolPolicy

log = logging.getLogger(__name__)

ResponseCache = ByteLru[Kept]
"""Of all models together."""


def response_cache(settings: Settings) -> ResponseCache | None:
    """The server's; None without `--cache-config`."""
    size_bytes = settings.cache.size_bytes
    return ByteLru(size_bytes) if size_bytes else None


def cache_for(config: ConfigDict, cache: ResponseCache | None) -> ResponseCache | None:
    """The cache, where a model with that complete configuration has a part in it. Says why not where it asks for it."""
    if not config.get("response_cache", {}).get("enable"):
        return None
    why = cache_obstacle(config)
    if not why and cache is None:
        why = "start the server with --cache-config=local,size=BYTES"
    if why:
        log.warning("model '%s': response_cache has no effect: %s", config["name"], why)
        return None
    return cache


def inner_policy(policy: PoolPolicy, cache: ResponseCache | None) -> PoolPolicy:
    """Of the pool behind the cache: answers are put in order where all of them pass, cached ones too."""
    return policy if cache is None else replace(policy, preserve_ordering=False)


def with_cache(pool: Pool, policy: PoolPolicy, cache: ResponseCache | None) -> Pool | CachedPool:
    """The pool, behind the cache if there is one."""
    if cache is None:
        return pool
    bounds = policy.scheduling.batch
    room = Room(pool.statistics.model, bounds.max_queue_requests, bounds.max_queue_bytes)
    digest = pool.instances[0].digest
    cached = CachedPool(
        pool, cache, pool.statistics, room, digest, preserve_ordering=policy.preserve_ordering
    )
    pool.front = cached
    pool.on_added = lambda instance: cached.loaded_from(instance.digest)
    return cached


def cache_obstacle(config: ConfigDict) -> str:
    """Why answers of a model with that configuration can't be cached; empty: they can."""
    if config.get("sequence_batching"):
        return "the answers of stateful models differ each time"
    if config.get("model_transaction_policy", {}).get("decoupled"):
        return "the responses of decoupled models are not cached"
    if config.get("ensemble_scheduling"):
        return "the answers of ensembles are not cached, but those of their steps may be"
    return ""
