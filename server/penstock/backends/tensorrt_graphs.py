"""CUDA graphs: what a batch of one shape has queued is replayed for the next one of that shape."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.backends.cuda_captures import Captures, Way
from penstock.backends.device_lost import check_device
from penstock.backends.isolation import one_line

MOST: Final = 16
"""Graphs that are kept, each of which takes some of the GPU's memory."""

Dims = tuple[int, ...]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, and the context that it is of, in which nothing is set any more."""

    graph: Any
    context: Any
    shapes: Mapping[str, Dims]
    """Of the outputs."""


class Graphs:
    """By shape. One that comes once may never come again: it is captured, for those after it, when it comes a second
    time."""

    def __init__(self, stream: Any, wanted: bool) -> None:
        self._stream: Final = stream
        self._captures: Final = Captures(MOST if wanted else 0)
        self._graphs: Final[dict[Hashable, Captured]] = {}

    def way(self, shape: Hashable) -> Way:
        """How a batch of that shape runs. CAPTURE is said again until `capture` or `stop` is called."""
        return self._captures.way(shape)

    def replay(self, shape: Hashable) -> Captured:
        """Queue the graph of the shape."""
        captured = self._graphs[shape]
        captured.graph.launch(self._stream)
        return captured

    def capture(self, shape: Hashable, context: Any, shapes: Mapping[str, Dims]) -> None:
        """Capture what `context`, which is handed over, has just queued: before that, TensorRT would do within the
        graph what it does but once. `shapes`: of the outputs. Raises DeviceLost."""
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("thread_local")
            queued = context.execute_async_v3(int(builder.stream.handle))
            graph = builder.end_building().complete()
        except Exception as error:  # noqa: BLE001 (whatever CUDA says: it goes without)
            check_device(error)
            self.stop(one_line(error))
            return
        finally:
            builder.close()
        if not queued:
            graph.close()
            self.stop("TensorRT refuses to")
            return
        self._graphs[shape] = Captured(graph, context, shapes)
        self._captures.done(shape)

    def stop(self, reason: str) -> None:
        """The engine does what can't be captured, or there is no room for more: no further shape is tried."""
        log.warning(
            "no more CUDA graphs for this engine, %d are there: %s", len(self._graphs), reason
        )
        self._captures.stop()

    def clear(self) -> None:
        """What they have captured is no longer so: memory lies elsewhere."""
        for captured in self._graphs.values():
            captured.graph.close()
        self._graphs.clear()
        self._captures.forget()
