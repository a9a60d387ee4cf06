"""What tells requests apart: a hash of all that their answers depend on, and of whose they are.

Everything is hashed with its length before it, or in an encoding that tells where it ends, so that no two different
requests are the same bytes. Not part of it: the request's id, priority and deadline, and what is made of the model's
tensors afterwards (classes, JSON or binary, places in shared memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import pack
from typing import Any, Final

import msgspec

from penstock.workers.request import NOT_THE_MODELS, PendingRequest, RequestPlan

KEY_BYTES: Final = 32
MAX_REMEMBERED: Final = 256
MAX_REMEMBERED_BYTES: Final = 4096
"""Plans that are remembered, and how long each may be."""

_pack: Final = msgspec.msgpack.Encoder().encode


class KeyMaker:
    """Makes the keys of one model's requests."""

    def __init__(self, identity: Sequence[str | bytes | int]) -> None:
        """`identity`: which model this is, and what it was loaded from."""
        self._model = blake2b(_pack(list(identity)), digest_size=KEY_BYTES)
        self._begun: dict[int, tuple[RequestPlan, Any]] = {}

    def begin(self, request: PendingRequest) -> Any:
        """The hash of all but the inputs' bytes; those that share a plan share most of it."""
        plan = request.plan
        known = self._begun.get(id(plan))
        begun = self._of_plan(plan) if known is None else known[1]
        state = begun.copy()
        sizes = [len(buffer) for buffer in request.buffers]
        tenant = request.tenant.encode()
        state.update(pack(f"<I{len(sizes)}Q", len(tenant), *sizes) + tenant)
        return state

    def _of_plan(self, plan: RequestPlan) -> Any:
        parameters = {k: v for k, v in plan.parameters.items() if k not in NOT_THE_MODELS}
        seen = _pack(
            (
                plan.input_names,
                plan.datatypes,
                plan.shapes,
                plan.output_names,
                sorted(parameters.items()),
            )
        )
        state = self._model.copy()
        state.update(pack("<Q", len(seen)) + seen)
        if len(seen) <= MAX_REMEMBERED_BYTES:
            if len(self._begun) >= MAX_REMEMBERED:
                self._begun.clear()
            # with the plan, so that its id is not given to another
            self._begun[id(plan)] = plan, state
        return state


def finish(state: Any, request: PendingRequest) -> bytes:
    """The key: `state` is what `begin` gave. Takes its time for large inputs, and may be called in any thread."""
    for buffer in request.buffers:
        state.update(buffer)
    key: bytes = state.digest()
    return key
