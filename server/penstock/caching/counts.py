"""What the cache has done for one version of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class CacheCounts:
    """Plain counters, with Triton's meaning where Triton has them."""

    hits: int = 0
    """Requests that were answered without being run."""
    hit_ns: int = 0
    """That it took to look them up and to answer them; what coalesced ones waited is no part of it."""
    misses: int = 0
    """Requests that were run, and are in the cache since then if they fit."""
    miss_ns: int = 0
    """That it took to look them up, and to put their answers in."""
    coalesced: int = 0
    """Of the hits, those that waited for one like them that was under way."""
    evictions: int = 0
    """Answers that had to make room for others, of whatever model."""
    too_large: int = 0
    """Answers that are larger than the whole cache."""
    entries: int = 0
    """Answers that are in the cache now."""
    nbytes: int = 0
    """That they take."""
