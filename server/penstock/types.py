"""Datatypes, and the one shape in which requests and responses travel between gateway, queue and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray

from penstock.verbs import Verb

Parameter = bool | int | float | str
"""What the protocol's request and response parameters can hold."""

NO_PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType({})

Buffer = bytes | bytearray | memoryview
"""Raw tensor bytes: little-endian, row-major; BYTES as `<u32 length><bytes>` per element."""

Array = NDArray[Any]

NUMPY_DTYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype(np.uint16),
        "UINT32": np.dtype(np.uint32),
        "UINT64": np.dtype(np.uint64),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype(np.int16),
        "INT32": np.dtype(np.int32),
        "INT64": np.dtype(np.int64),
        "FP16": np.dtype(np.float16),
        "FP32": np.dtype(np.float32),
        "FP64": np.dtype(np.float64),
        "BF16": np.dtype(bfloat16),
        "BYTES": np.dtype(np.object_),
    }
)
"""Protocol datatype → NumPy dtype. BYTES are object arrays of `bytes`."""

ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {name: 0 if name == "BYTES" else dtype.itemsize for name, dtype in NUMPY_DTYPES.items()}
)
"""Protocol datatype → bytes an element; 0 for BYTES, whose elements vary."""

DATATYPES: Final[Mapping[np.dtype[Any], str]] = MappingProxyType(
    {dtype: name for name, dtype in NUMPY_DTYPES.items()}
)
"""NumPy dtype → protocol datatype."""


@dataclass(frozen=True, slots=True)
class RegionRef:
    """A place in a client's shared memory, as a request names it."""

    name: str
    """Of the registered region."""
    offset: int
    """Bytes from the region's begin."""
    byte_size: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor without its bytes, as the wire names it. `shape` includes the batch dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    region: RegionRef | None = None
    """Where its bytes are when they don't come with the request."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output the client asked for. `classification` is the top-k it wants as classes, 0 for none."""

    name: str
    classification: int = 0
    binary: bool | None = None
    """HTTP only: raw bytes (true), JSON (false), or as the request says for all (None)."""
    region: RegionRef | None = None
    """Where the client wants its bytes."""


@dataclass(frozen=True, slots=True)
class InferHeader:
    """All of a request but its id and its bytes.

    Clients repeat it word for word, so the gateway parses and checks each distinct one once.
    """

    model_name: str
    model_version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def names_regions(self) -> bool:
        """Whether some tensor lies, or shall lie, in a client's shared memory."""
        return any(t.region for t in self.inputs) or any(o.region for o in self.outputs)


SequenceId = int | str
SequenceKey = tuple[str, SequenceId]
"""Tenant and id: what one tenant calls its sequences is nothing to another one."""
"""A sequence's correlation id: above 0, or not empty. The number 1 and the text "1" are two ids."""


class SequenceTerms(msgspec.Struct, frozen=True):
    """What a request's parameters say of the sequence that it belongs to."""

    id: SequenceId
    start: bool
    end: bool


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A request's place among the sequences of the instance that runs it."""

    slot: int
    """Where that instance keeps the sequence's state; with the strategy `direct` also its row in the batch."""
    start: bool
    """It begins anew, from the initial state."""
    end: bool
    """It is the last one."""
    id: SequenceId


class Uneven(msgspec.Struct, frozen=True, array_like=True):
    """What the requests of a batch don't have in common, where they may be joined nevertheless. One value a request."""

    ragged: dict[str, tuple[tuple[int, ...], ...]]
    """Inputs whose elements lie side by side in one dimension → the shapes that clients sent."""
    lengths: dict[str, tuple[int, ...]]
    """Padded inputs that outputs are cut to → the sizes that clients sent, of the dimension that was padded."""


class TraceSwitch(msgspec.Struct):
    """Whether any request may be traced now: all that tracing costs while it is off is a look at this."""

    on: bool = False


class TracedCall(msgspec.Struct):
    """When a call came, and of which trace it is a part. Times are of the monotonic clock, in nanoseconds."""

    protocol: Literal["HTTP", "GRPC"]
    started_ns: int
    traceparent: str = ""
    """https://www.w3.org/TR/trace-context/; empty: the client sent none."""
    tracestate: str = ""
    received_ns: int = 0
    """When all of it was here; 0: not yet."""


class Lease(Protocol):
    """What a request has of its tenant's quota until it is answered."""

    def release(self) -> None:
        """Give it back. A second time does nothing."""
        ...


class CallSession(Protocol):
    """Whose a call is, and what it may do. Made by `penstock.access`."""

    @property
    def tenant(self) -> str: ...

    def check(self, verb: Verb, model: str = "") -> None:
        """Raises Forbidden."""
        ...

    def admit(self, model: str, rows: int, nbytes: int) -> Lease | None:
        """Take a request's share of the tenant's quota; None: nothing has to be given back. Raises QuotaExceeded."""
        ...


DEFAULT_TENANT: Final = "default"
"""Whose all is that nobody says anything else of."""


class CallTerms(msgspec.Struct, frozen=True):
    """What comes with a call rather than in its message: for whom it is, and how long its client waits."""

    timeout_us: int | None = None
    """From the call's arrival; None: the client waits for ever."""
    tenant: str = DEFAULT_TENANT
    """Whose share of the model it takes."""
    traced: TracedCall | None = None
    """Set while requests may be traced."""
    session: CallSession | None = None
    """None: access is not controlled."""


NO_TERMS: Final = CallTerms()
"""Of most calls."""


class MetricKind(IntEnum):
    """Of a metric that a model makes; Triton's numbers."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class MetricChange(msgspec.Struct, frozen=True, array_like=True):
    """What became of one of a model's own metrics since it was told last."""

    family: str
    kind: MetricKind
    description: str
    labels: tuple[tuple[str, str], ...]
    value: float
    """To be added; of a histogram to its sum."""
    is_set: bool
    """The value takes the place of what was before: a gauge was set."""
    bounds: tuple[float, ...]
    """Of a histogram's buckets, ascending; one more bucket takes what is larger."""
    buckets: tuple[int, ...]
    """To be added to them."""


class OutputTensor(msgspec.Struct, frozen=True):
    """An output of one request: `data` is a view into a slab, valid only while the response is being encoded.

    A Struct, for one is made per output of every request: a frozen dataclass takes six times as long to make.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer
    region: RegionRef | None = None
    """Where its bytes were written: `data` is empty then."""


class InferResponse(msgspec.Struct, frozen=True):
    """The answer to one request. Its tensors are views: encode them before the call that handed them out returns."""

    model_name: str
    model_version: str
    id: str
    outputs: tuple[OutputTensor, ...]
    parameters: Mapping[str, Parameter] = {}
