"""Execution contexts of an engine, which share one piece of scratch memory: batches run one after the other, on one
stream.

A CUDA graph needs a context to itself. TensorRT's guide: a graph is of the state of the context that it was captured
from, whose modification makes the graph undefined, so "use one execution context per captured graph, and share memory
across the contexts". A context of its own costs what TensorRT keeps for it beside the scratch memory, which is little.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from penstock.backends.tensorrt_builder import Toolkit
from penstock.backends.tensorrt_errors import failure, telling_why


class Contexts:
    """Of one engine."""

    def __init__(
        self, tools: Toolkit, engine: Any, profiles: Collection[int], device: Any, stream: Any
    ) -> None:
        """`profiles`: the numbers of those that are used. Lays the scratch memory out, which never moves."""
        self._tools: Final = tools
        self._engine: Final = engine
        self._stream: Final = stream
        self._nbytes: Final = max(
            [engine.get_device_memory_size_for_profile_v2(number) for number in profiles]
        )
        self._scratch: Final = device.allocate(max(self._nbytes, 1), stream=stream)
        self._shared: Final[dict[int, Any]] = {}

    def of(self, profile: int) -> Any:
        """The one for batches of any shape that run without a graph."""
        if profile not in self._shared:
            self._shared[profile] = self.made(profile)
        return self._shared[profile]

    def made(self, profile: int) -> Any:
        """One more. Raises what TensorRT says against it."""
        strategy = self._tools.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise failure(self._tools.messages, "there is no execution context")
        context.set_device_memory(int(self._scratch.handle), self._nbytes)
        with telling_why(self._tools.messages, f"it doesn't take profile {profile}"):
            context.set_optimization_profile_async(profile, int(self._stream.handle))
        return context

    def close(self) -> None:
        """Give all of it back. Those of graphs have to be gone."""
        self._shared.clear()
        self._scratch.close(self._stream)
