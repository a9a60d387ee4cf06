"""A way to run a model, and those worth trying next to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.model_config import ConfigDict
from penstock.tuning.config_edit import Changes

EXCHANGEABLE: Final = ("onnxruntime", "openvino")
"""Backends that run the same file, where it is ONNX."""
THREADS: Final = {"onnxruntime": "intra_op_thread_count", "openvino": "INFERENCE_NUM_THREADS"}
"""Backend → its parameter."""
BATCH_SIZES: Final = (8, 16, 32, 64, 128)
DELAYS_US: Final = (0, 500, 2000, 5000)
MOST_INSTANCES: Final = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """What of a configuration is tuned."""

    backend: str
    instances: int = 1
    threads: int = 0
    """Of each instance; 0: its share of the cores."""
    max_batch_size: int = 0
    delay_us: int = 0
    preferred: tuple[int, ...] = ()

    def __str__(self) -> str:
        batch = f", max_batch_size {self.max_batch_size}" if self.max_batch_size else ""
        delay = f", delay {self.delay_us} µs" if self.delay_us else ""
        preferred = f", preferred {list(self.preferred)}" if self.preferred else ""
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        threads += " each" if self.threads and self.instances > 1 else ""
        count = f"{self.instances} instance{'s' * (self.instances > 1)}"
        return f"{self.backend}, {count}{threads}{batch}{delay}{preferred}"


@dataclass(frozen=True, slots=True)
class Space:
    """What may be tried."""

    backends: Sequence[str]
    cores: int
    batches: bool
    """max_batch_size is the configuration's to say."""
    waits: bool
    """Requests are joined by the dynamic batcher."""
    instances: bool = True
    """False: the instance groups say more than a count, and stay."""

    def steps(self) -> Sequence[str]:
        """The coordinates, in the order in which they are searched: what matters most comes first."""
        return ("backend", "instances", "max_batch_size", "queue delay")

    def around(self, step: str, best: Candidate) -> Iterator[Candidate]:
        """What differs from `best` in that coordinate alone."""
        for found in self._along(step, best):
            if found != best:
                yield found

    def _along(self, step: str, best: Candidate) -> Iterator[Candidate]:
        if step == "backend":
            yield from (replace(best, backend=name, threads=0) for name in self.backends)
        elif step == "instances" and self.instances:
            counts = [2**n for n in range(MOST_INSTANCES.bit_length()) if 2**n <= self.cores]
            yield from (replace(best, instances=n, threads=0) for n in counts)
            if best.backend in THREADS and self.cores > 1:
                yield replace(best, instances=1, threads=1)
        elif step == "max_batch_size" and self.batches:
            yield from (replace(best, max_batch_size=n, preferred=()) for n in BATCH_SIZES)
        elif step == "queue delay" and self.waits:
            yield from (replace(best, delay_us=n, preferred=()) for n in DELAYS_US)
            half = best.max_batch_size // 2
            if half > 1:
                delay = best.delay_us or DELAYS_US[1]
                yield replace(best, delay_us=delay, preferred=(half,))


def candidate_of(config: ConfigDict) -> Candidate:
    """How a model is configured now; `config` is complete."""
    parameters = config.get("parameters") or {}
    key = THREADS.get(config["backend"], "")
    threads = parameters.get(key, {}).get("string_value", "").strip()
    batching = config.get("dynamic_batching") or {}
    groups = config.get("instance_group") or [{}]
    return Candidate(
        backend=config["backend"],
        instances=sum(group.get("count") or 1 for group in groups),
        threads=int(threads) if threads.isdecimal() else 0,
        max_batch_size=config["max_batch_size"],
        delay_us=int(batching.get("max_queue_delay_microseconds") or 0),
        preferred=tuple(batching.get("preferred_batch_size") or ()),
    )


def changes_between(now: Candidate, then: Candidate, config: ConfigDict) -> Changes:
    """What has to be written into a file that says `config`, which leads to `now`, so that it leads to `then`."""
    changes: dict[tuple[str, ...], Any] = {}
    if then.backend != now.backend:
        changes["backend",] = then.backend
        if config.get("platform"):
            changes["platform",] = None
    if then.instances != now.instances:
        groups = config.get("instance_group") or [{}]
        kind = groups[0].get("kind") or "KIND_AUTO"
        changes["instance_group",] = [{"count": then.instances, "kind": kind}]
    if then.max_batch_size != now.max_batch_size:
        changes["max_batch_size",] = then.max_batch_size
    if then.delay_us != now.delay_us:
        changes["dynamic_batching", "max_queue_delay_microseconds"] = then.delay_us
    if then.preferred != now.preferred:
        changes["dynamic_batching", "preferred_batch_size"] = list(then.preferred) or None
    if (then.backend, then.threads) != (now.backend, now.threads):
        if now.threads:
            changes["parameters", THREADS[now.backend]] = None
        if then.threads:
            changes["parameters", THREADS[then.backend]] = str(then.threads)
    return changes
