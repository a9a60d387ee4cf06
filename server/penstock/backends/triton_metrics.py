"""Metrics that a Python model makes itself: Triton's `MetricFamily` and `Metric`.

They are kept here and told to the gateway after each batch, which shows the sums of all workers.
"""

from __future__ import annotations

import re
import threading
import weakref
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from penstock.backends.triton_objects import TritonModelException
from penstock.types import MetricChange, MetricKind

MAX_METRICS: Final = 10_000
"""Of one model: labels that differ in each request would fill the memory."""

Labels = tuple[tuple[str, str], ...]

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class _Value:
    """One metric: all objects with the same family and labels share it."""

    __slots__ = ("added", "bounds", "buckets", "is_set", "told", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.total = 0.0
        """Of a histogram the sum of what was observed."""
        self.added = 0.0
        """Since it was told last."""
        self.is_set = False
        """A gauge that was set, rather than changed, since then."""
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.told = list(self.buckets)
        """The buckets as they were told last."""


class _Kept:
    """What is known of a family's name, whichever object names it."""

    __slots__ = ("description", "kind", "values")

    def __init__(self, kind: MetricKind, description: str) -> None:
        self.kind = kind
        self.description = description
        self.values: dict[Labels, _Value] = {}


class MetricRegistry:
    """All metrics of one process. Models may use them in threads of their own."""

    def __init__(self) -> None:
        self._families: dict[str, _Kept] = {}
        self._changed: dict[tuple[str, Labels], None] = {}
        self._count = 0
        self.lock = threading.Lock()

    def family(self, name: str, kind: MetricKind, description: str) -> _Kept:
        """The family of that name. Raises TritonModelException when it is of another kind."""
        with self.lock:
            kept = self._families.setdefault(name, _Kept(kind, description))
        if kept.kind is not kind:
            raise TritonModelException(
                f"metric family '{name}' exists already and is a {kept.kind.name.lower()}"
            )
        return kept

    def value(self, name: str, kept: _Kept, labels: Labels, bounds: tuple[float, ...]) -> _Value:
        """The metric with these labels."""
        with self.lock:
            value = kept.values.get(labels)
            if value is None:
                if self._count >= MAX_METRICS:
                    raise TritonModelException(f"a model may have {MAX_METRICS} metrics, no more")
                self._count += 1
                value = kept.values[labels] = _Value(bounds)
                self._changed[name, labels] = None
        return value

    def changed(self, name: str, labels: Labels) -> None:
        """Have it told. The caller has the lock."""
        self._changed[name, labels] = None

    def take(self) -> tuple[MetricChange, ...]:
        """What changed since it was taken last."""
        if not self._changed:
            return ()
        with self.lock:
            changes = tuple(self._change(*key) for key in self._changed)
            self._changed.clear()
        return changes

    def tell_all(self) -> None:
        """Another gateway listens, and knows nothing yet."""
        with self.lock:
            for name, kept in self._families.items():
                for labels, value in kept.values.items():
                    value.added = value.total
                    value.told = [0] * len(value.buckets)
                    value.is_set = kept.kind is MetricKind.GAUGE
                    self._changed[name, labels] = None

    def _change(self, name: str, labels: Labels) -> MetricChange:
        kept = self._families[name]
        value = kept.values[labels]
        change = MetricChange(
            name,
            kept.kind,
            kept.description,
            labels,
            value.total if value.is_set else value.added,
            value.is_set,
            value.bounds,
            tuple(now - told for now, told in zip(value.buckets, value.told, strict=True)),
        )
        value.added, value.is_set, value.told = 0.0, False, list(value.buckets)
        return change


registry: Final = MetricRegistry()
"""Of this process: a model names no registry when it makes a family."""


class MetricFamily:
    """Metrics of one name, one for each set of labels. Raises TritonModelException on a bad name, or another kind."""

    COUNTER: Final = MetricKind.COUNTER
    GAUGE: Final = MetricKind.GAUGE
    HISTOGRAM: Final = MetricKind.HISTOGRAM

    def __init__(self, name: str = "", description: str = "", kind: int = COUNTER) -> None:
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise TritonModelException(f"{name!r} is no metric's name")
        self._name = name
        self._kind = MetricKind(kind)
        self._kept = registry.family(name, self._kind, str(description))

    def Metric(
        self, labels: Mapping[str, Any] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The metric with these labels; `buckets` are a histogram's bounds. Raises TritonModelException."""
        bounds: tuple[float, ...] = ()
        if self._kind is MetricKind.HISTOGRAM:
            if buckets is None:
                raise TritonModelException(
                    f"metric '{self._name}': a histogram needs its buckets, an ascending list"
                )
            bounds = tuple(map(float, buckets))
            if any(not low < high for low, high in pairwise(bounds)):
                raise TritonModelException(f"metric '{self._name}': buckets must ascend")
        given = tuple(sorted((str(name), str(value)) for name, value in (labels or {}).items()))
        for name, _ in given:
            if _LABEL.fullmatch(name) is None or (name == "le" and bounds):
                raise TritonModelException(f"metric '{self._name}': {name!r} is no label's name")
        value = registry.value(self._name, self._kept, given, bounds)
        return Metric(self, self._name, self._kind, given, value)


class Metric:
    """One metric. Made by `MetricFamily.Metric`."""

    def __init__(
        self, family: MetricFamily, name: str, kind: MetricKind, labels: Labels, value: _Value
    ) -> None:
        self._family = weakref.ref(family)
        self._name = name
        self._kind = kind
        self._labels = labels
        self._value = value

    def increment(self, value: float) -> None:
        """Add to a counter, or to a gauge. Raises TritonModelException."""
        self._check("increment", MetricKind.COUNTER, MetricKind.GAUGE)
        if self._kind is MetricKind.COUNTER and value < 0:
            raise TritonModelException(f"metric '{self._name}': a counter can't go down")
        with registry.lock:
            self._value.total += value
            self._value.added += value
            registry.changed(self._name, self._labels)

    def set(self, value: float) -> None:
        """Set a gauge. Raises TritonModelException."""
        self._check("set", MetricKind.GAUGE)
        with registry.lock:
            self._value.total = float(value)
            self._value.is_set = True
            registry.changed(self._name, self._labels)

    def observe(self, value: float) -> None:
        """Count a value in a histogram. Raises TritonModelException."""
        self._check("observe", MetricKind.HISTOGRAM)
        with registry.lock:
            self._value.total += value
            self._value.added += value
            self._value.buckets[bisect_left(self._value.bounds, value)] += 1
            registry.changed(self._name, self._labels)

    def value(self) -> float:
        """What this worker has counted or set. Raises TritonModelException."""
        self._check("value", MetricKind.COUNTER, MetricKind.GAUGE)
        return self._value.total

    def _check(self, call: str, *kinds: MetricKind) -> None:
        if self._family() is None:
            raise TritonModelException(
                "Invalid metric operation as the corresponding 'MetricFamily' has been deleted."
            )
        if self._kind not in kinds:
            kind = self._kind.name.lower()
            raise TritonModelException(f"metric '{self._name}': a {kind} has no {call}()")
