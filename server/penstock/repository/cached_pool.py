"""A pool whose answers are kept: what was asked before is answered without queue and worker."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from os import urandom
from typing import Any, Final, NamedTuple

from penstock.caching.answer import NOTHING, Kept, kept, size_bytes
from penstock.caching.byte_lru import ByteLru
from penstock.caching.counts import CacheCounts
from penstock.caching.request_key import KeyMaker, finish
from penstock.caching.room import Room
from penstock.errors import Cancelled, PenstockError, QueueFull, Unavailable
from penstock.repository.answers import encoded
from penstock.repository.coalescing import Coalescing
from penstock.repository.model_pool import ModelPool
from penstock.repository.model_queue import queue_of
from penstock.repository.unanswered import CLIENT_GONE, UNLOADED
from penstock.scheduling.ordering import InOrder
from penstock.telemetry.statistics import FailureReason, ModelStatistics
from penstock.types import OutputTensor, Parameter
from penstock.workers.request import Answer, PendingRequest

ASIDE_FROM_BYTES: Final = 512 << 10
"""Inputs of this size take most of a millisecond to hash, which is done beside the event loop."""

HITS_A_TURN: Final = 64
"""Answered in one turn of the event loop, so that nobody else waits for long."""


class _NotExecuted:
    """How long that took."""

    input_ns = infer_ns = output_ns = 0


_NO_TIMES: Final = _NotExecuted()


class _Hit(NamedTuple):
    request: PendingRequest
    answer: Kept
    lookup_ns: int
    coalesced: bool


class CachedPool:
    """In front of a model's own pool, which it owns. All of it runs on the gateway's event loop."""

    def __init__(
        self,
        pool: ModelPool,
        cache: ByteLru[Kept],
        statistics: ModelStatistics,
        room: Room,
        digest: bytes,
        *,
        preserve_ordering: bool,
    ) -> None:
        """`digest`: of what the model was loaded from. `pool` must not order its answers itself."""
        self._pool = pool
        self._cache = cache
        self._statistics = statistics
        self._counts = statistics.cache = CacheCounts()
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._load = urandom(16)
        """So that nothing is found that was put in before this load, whatever the digest says."""
        self._digest = digest
        self._keys = self._key_maker()
        self._coalescing = Coalescing(queue_of(pool, statistics.model), self, room)
        self._in_order = InOrder[PendingRequest, Answer]() if preserve_ordering else None
        self._hits: deque[_Hit] = deque()
        self._hashing: dict[PendingRequest, asyncio.Future[bytes]] = {}
        self._closed = False

    @property
    def ready(self) -> bool:
        """As ModelPool."""
        return self._pool.ready

    @property
    def accepts(self) -> bool:
        """As ModelPool."""
        return self._pool.accepts

    @property
    def problem(self) -> str:
        """As ModelPool."""
        return self._pool.problem

    @property
    def last_crash(self) -> str:
        """As ModelPool."""
        return self._pool.last_crash

    @property
    def instances(self) -> Sequence[object]:
        """As ModelPool."""
        return self._pool.instances

    def tell_logging(self) -> None:
        """As ModelPool."""
        self._pool.tell_logging()

    def loaded_from(self, digest: bytes) -> None:
        """A worker was started anew. If it has loaded something else, nothing that was answered before counts."""
        if digest != self._digest:
            self._digest = digest
            self._keys = self._key_maker()
            self._cache.drop(self._counts)

    def submit(self, request: PendingRequest) -> None:
        """As ModelPool."""
        if self._closed:
            raise Unavailable(f"model '{self._statistics.model}' is being unloaded")
        began_ns = time.monotonic_ns()
        state = self._keys.begin(request)
        if request.input_bytes < ASIDE_FROM_BYTES:
            self._look_up(request, finish(state, request), began_ns)
        else:
            self._hash_aside(request, state, began_ns)
        if self._in_order is not None:
            self._in_order.expect(request)

    def submit_at_once(self, request: PendingRequest) -> None:
        """As ModelPool. It waits for no other request, not even one that is the same."""
        if self._closed:
            raise Unavailable(f"model '{self._statistics.model}' is being unloaded")
        request.at_once = True
        began_ns = time.monotonic_ns()
        answer = self._cache.get(finish(self._keys.begin(request), request))
        if answer is None:
            self._pool.submit_at_once(request)
        else:
            self.hit(request, answer, time.monotonic_ns() - began_ns, coalesced=False)

    def cancel(self, request: PendingRequest) -> None:
        """As ModelPool."""
        if request.at_once:
            self._pool.cancel(request)
        elif not request.done and not self._coalescing.cancel(request):
            # it is hashed, or its answer is about to be made
            self.fail(request, Cancelled(CLIENT_GONE), FailureReason.CANCELED, at_once=True)

    def explain(self) -> dict[str, Any]:
        """As ModelPool, with the cache."""
        counts = self._counts
        return self._pool.explain() | {
            "response_cache": {
                "budget_bytes": self._cache.budget_bytes,
                "used_bytes": self._cache.used_bytes,
                "model_bytes": counts.nbytes,
                "entries": counts.entries,
                "hits": counts.hits,
                "misses": counts.misses,
                "coalesced": counts.coalesced,
                "evictions": counts.evictions,
                "too_large": counts.too_large,
                "runs": self._coalescing.runs,
                "waiting": self._room.requests,
            }
        }

    async def close(self, grace_s: float) -> None:
        """As ModelPool. The model's answers are forgotten."""
        self._closed = True
        began_s = self._loop.time()
        if self._hashing:
            await asyncio.wait(list(self._hashing.values()), timeout=grace_s)
            for request in list(self._hashing):
                self.fail(request, Unavailable(UNLOADED), FailureReason.OTHER)
        await self._pool.close(max(0.0, grace_s - (self._loop.time() - began_s)))
        while self._hits:
            self._answer_hits()
        self._coalescing.close()
        self._cache.drop(self._counts)

    def _key_maker(self) -> KeyMaker:
        statistics = self._statistics
        return KeyMaker((statistics.model, statistics.version, self._digest, self._load))

    # ── looking up ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_up(self, request: PendingRequest, key: bytes, began_ns: int) -> None:
        answer = self._cache.get(key)
        lookup_ns = time.monotonic_ns() - began_ns
        if answer is None:
            self._coalescing.submit(request, key, lookup_ns)
        else:
            self.hit(request, answer, lookup_ns, coalesced=False)

    def _hash_aside(self, request: PendingRequest, state: Any, began_ns: int) -> None:
        try:
            self._room.enter(request)
        except QueueFull:
            self.refused(request)
            raise
        hashing = self._loop.run_in_executor(None, finish, state, request)
        self._hashing[request] = hashing
        hashing.add_done_callback(partial(self._hashed, request, began_ns))

    def _hashed(
        self, request: PendingRequest, began_ns: int, hashing: asyncio.Future[bytes]
    ) -> None:
        del self._hashing[request]
        self._room.leave(request)
        if request.done:
            # its client is gone
            return
        try:
            self._look_up(request, hashing.result(), began_ns)
        except PenstockError as error:
            self.finish(request, error)

    # ── answers, as Coalescing says ─────────────────────────────────────────────────────────────────────────────────

    def keep(
        self,
        key: bytes,
        outputs: Sequence[OutputTensor],
        parameters: Mapping[str, Parameter],
        *,
        needed: bool,
    ) -> Kept:
        """Put a model's answer into the cache, where it fits."""
        nbytes = size_bytes(outputs, parameters)
        fits = self._cache.fits(nbytes)
        answer = kept(outputs, parameters) if fits or needed else NOTHING
        if fits:
            self._cache.put(key, answer, nbytes, self._counts)
        else:
            self._counts.too_large += 1
        return answer

    def missed(self, ns: int) -> None:
        """Count a request that was run."""
        self._statistics.record_miss(time.time_ns() // 1_000_000, ns)

    def refused(self, request: PendingRequest) -> None:
        """Count a request that was not taken."""
        waited_ns = time.monotonic_ns() - request.arrived_ns
        self._statistics.record_failure(FailureReason.REJECTED, waited_ns)

    def hit(
        self, request: PendingRequest, answer: Kept, lookup_ns: int, *, coalesced: bool
    ) -> None:
        """Answer at the end of this turn of the loop: not before `submit` returns."""
        if not self._hits:
            self._loop.call_soon(self._answer_hits)
        self._hits.append(_Hit(request, answer, lookup_ns, coalesced))

    def finish(self, request: PendingRequest, answer: Answer) -> None:
        """Hand out an answer, when its turn has come."""
        if self._in_order is None or request.at_once:
            request.finish(answer)
            return
        for ready, its_answer in self._in_order.complete(request, answer):
            ready.finish(its_answer)

    def fail(
        self,
        request: PendingRequest,
        error: PenstockError,
        reason: FailureReason,
        *,
        at_once: bool = False,
    ) -> None:
        """Count an error, and hand it out."""
        self._statistics.record_failure(reason, time.monotonic_ns() - request.arrived_ns)
        if at_once:
            request.finish(error)
        self.finish(request, error)

    def _answer_hits(self) -> None:
        queue_ns: list[int] = []
        request_ns: list[int] = []
        hit_ns: list[int] = []
        began_ns = time.monotonic_ns()
        for _ in range(min(HITS_A_TURN, len(self._hits))):
            request, (outputs, parameters), lookup_ns, coalesced = self._hits.popleft()
            if request.done:
                continue
            if request.caller is not None:
                request.caller.computed(_NO_TIMES, None)
            request.response_parameters = parameters
            answer = encoded(request, list(outputs))
            if isinstance(answer, PenstockError):
                self.fail(request, answer, FailureReason.BACKEND)
                continue
            self.finish(request, answer)
            now_ns = time.monotonic_ns()
            took_ns = lookup_ns + now_ns - began_ns
            hit_ns.append(took_ns)
            request_ns.append(now_ns - request.arrived_ns)
            queue_ns.append(max(0, now_ns - request.arrived_ns - took_ns))
            self._counts.coalesced += coalesced
            began_ns = now_ns
        if hit_ns:
            now_ms = time.time_ns() // 1_000_000
            self._statistics.record_hits(now_ms, queue_ns, request_ns, hit_ns)
        if self._hits:
            self._loop.call_soon(self._answer_hits)
