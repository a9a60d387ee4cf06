"""The nicer way to write a Python model: a decorated class, numpy in and out, no configuration file needed.

    import penstock
    from penstock import Context, Spec

    @penstock.model(
        inputs={"INPUT0": Spec("FP32", 16), "INPUT1": Spec("FP32", 16)},
        outputs={"SUM": Spec("FP32", 16)},
        max_batch_size=64,
    )
    class AddSub:
        def __init__(self, context: Context) -> None: ...
        def __call__(self, INPUT0, INPUT1):
            return {"SUM": INPUT0 + INPUT1}

`__call__` gets one read-only array an input by name, joined over the requests of a batch (first dimension: rows), and
returns one array an output with the same first dimension. An optional input that the requests leave out is not passed.
When the call raises for a batch of several requests it is repeated for each of them alone, so that only the requests
that can't be answered fail: keep it free of side effects. `__init__`, or its `context`, may be left out.
A `__call__` that is a generator makes a decoupled model: each dict that it yields is a response, of which every request
of the batch gets its rows. It is not called again when it fails, and closed (GeneratorExit) when nobody wants more.
`close(self)`, if there is one, runs before the worker ends. `context.infer` asks other models of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from penstock.types import ITEM_BYTES, Array, Parameter

MODEL_ATTRIBUTE: Final = "__penstock_model__"
"""Where `model` leaves its ModelDeclaration on the class."""

AnyClass = TypeVar("AnyClass", bound=type)


class Infer(Protocol):
    """Asks another model of the server, and waits for its outputs."""

    def __call__(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> dict[str, Array]:
        """`outputs`: those that are wanted; empty: all. Tenant, deadline and priority are those of the requests that
        the model runs now. Raises a PenstockError that says what is wrong; uncaught, it is what the client gets."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a model is told when it is loaded."""

    name: str
    version: int
    directory: Path
    """The version's folder: weights and other files lie here."""
    device: str
    """`cpu`, or `cuda:0`: the one GPU that this instance sees."""
    threads: int
    """Compute threads this instance may use."""
    parameters: Mapping[str, str]
    """The configuration's `parameters`."""
    infer: Infer = field(repr=False)
    """`context.infer("other", {"X": array})["Y"]`: from within `__call__`, not before the model is loaded."""


class Spec:
    """Datatype and dims (without the batch dimension; -1 is any size) of a tensor: `Spec("FP32", 3, 224, 224)`.

    Raises ValueError for a datatype the protocol doesn't have, or a dimension that is no size.
    """

    __slots__ = ("datatype", "dims", "labels", "optional")

    def __init__(self, datatype: str, *dims: int, optional: bool = False, labels: str = "") -> None:
        if datatype not in ITEM_BYTES:
            raise ValueError(f"datatype {datatype!r}, expected one of {', '.join(ITEM_BYTES)}")
        if any(type(size) is not int or size < -1 for size in dims):
            raise ValueError(f"dims {dims}, expected sizes, or -1 for any")
        self.datatype: Final = datatype
        self.dims: Final = dims
        self.optional: Final = optional
        self.labels: Final = labels
        """File of class labels in the model's folder, for the classification extension."""

    def __repr__(self) -> str:
        return f"Spec({', '.join([repr(self.datatype), *map(str, self.dims)])})"


@dataclass(frozen=True, slots=True)
class ModelDeclaration:
    """What `model` was told."""

    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]
    max_batch_size: int
    """0: the model takes no batch dimension, and every request runs alone."""
    max_queue_delay_us: int
    instances: int


def model(
    *,
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec],
    max_batch_size: int = 0,
    max_queue_delay_us: int = 0,
    instances: int = 1,
) -> Callable[[AnyClass], AnyClass]:
    """Declare a class as a model. What config.pbtxt says of the same wins.

    Raises ValueError where there is no input or output, or a number is out of range.
    """
    if not inputs or not outputs:
        raise ValueError("a model needs at least one input and one output")
    if max_batch_size < 0 or max_queue_delay_us < 0 or instances < 1:
        raise ValueError(
            f"max_batch_size={max_batch_size}, max_queue_delay_us={max_queue_delay_us},"
            f" instances={instances}: expected at least 0, 0 and 1"
        )
    declaration = ModelDeclaration(inputs, outputs, max_batch_size, max_queue_delay_us, instances)

    def mark(cls: AnyClass) -> AnyClass:
        setattr(cls, MODEL_ATTRIBUTE, declaration)
        return cls

    return mark
