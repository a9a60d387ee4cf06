"""CUDA graphs: what a batch of one shape has queued is replayed for the next one of that shape."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final

from penstock.backends.isolation import one_line

MOST: Final = 32
"""Graphs that are kept, each of which takes some of the GPU's memory."""

log = logging.getLogger(__name__)


class Graphs:
    """By shape. One that comes once may never come again: it is captured, for those after it, when it comes a second
    time."""

    def __init__(self, stream: Any, wanted: bool) -> None:
        self._stream: Final = stream
        self._wanted = wanted
        self._graphs: Final[OrderedDict[Hashable, Any]] = OrderedDict()
        """None: seen once."""

    def run(self, shape: Hashable, enqueue: Callable[[int], bool]) -> bool:
        """Queue the batch, by `enqueue` on a stream's handle or by its graph. False: `enqueue` says that it failed."""
        if not self._wanted:
            return enqueue(int(self._stream.handle))
        if shape not in self._graphs:
            self._remember(shape, None)
            return enqueue(int(self._stream.handle))
        self._graphs.move_to_end(shape)
        graph = self._graphs[shape]
        if graph is not None:
            graph.launch(self._stream)
            return True
        # before a capture TensorRT has to queue that very shape: another one may have come since
        queued = enqueue(int(self._stream.handle))
        if queued and (graph := self._captured(enqueue)) is not None:
            self._graphs[shape] = graph
        return queued

    def clear(self) -> None:
        """What they have captured is no longer so: memory lies elsewhere."""
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()

    def _remember(self, shape: Hashable, graph: Any) -> None:
        self._graphs[shape] = graph
        if len(self._graphs) > MOST:
            _, oldest = self._graphs.popitem(last=False)
            if oldest is not None:
                oldest.close()

    def _captured(self, enqueue: Callable[[int], bool]) -> Any:
        """The graph; None: the engine does what can't be captured, and is not tried again."""
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("thread_local")
            queued = enqueue(int(builder.stream.handle))
            graph = builder.end_building().complete()
            if queued:
                return graph
            graph.close()
            reason = "TensorRT refuses to"
        except Exception as error:  # noqa: BLE001 (whatever CUDA says: it goes without)
            reason = one_line(error)
        finally:
            builder.close()
        log.warning("the engine runs without CUDA graphs, for it can't be captured: %s", reason)
        self._wanted = False
        self.clear()
        return None
