"""A model's answer as the cache keeps it: its tensors, of which each request's own response can be made."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from penstock.types import NO_PARAMETERS, OutputTensor, Parameter


class Kept(NamedTuple):
    """An answer, on its own."""

    outputs: tuple[OutputTensor, ...]
    """Tensors that own their bytes."""
    parameters: Mapping[str, Parameter]
    """That the model gave the response."""


NOTHING: Final = Kept((), NO_PARAMETERS)

ENTRY_BYTES: Final = 512
"""That an answer takes beside its tensors: its key, and its places in the cache's tables."""

TENSOR_BYTES: Final = 320
"""That a tensor takes beside its elements and dimensions."""

DIMENSION_BYTES: Final = 40


PARAMETER_BYTES: Final = 512
"""That a parameter takes beside its characters, of up to four bytes."""


def size_bytes(
    outputs: Sequence[OutputTensor], parameters: Mapping[str, Parameter] = NO_PARAMETERS
) -> int:
    """What the answer would take, all told; rather too much than too little."""
    tensors_bytes = sum(
        [
            TENSOR_BYTES + len(output.data) + DIMENSION_BYTES * len(output.shape)
            for output in outputs
        ]
    )
    parameters_bytes = sum(
        PARAMETER_BYTES + 4 * (len(name) + len(str(value))) for name, value in parameters.items()
    )
    return ENTRY_BYTES + tensors_bytes + parameters_bytes


def kept(
    outputs: Sequence[OutputTensor], parameters: Mapping[str, Parameter] = NO_PARAMETERS
) -> Kept:
    """Copies of tensors that are views of a slab."""
    tensors = tuple(
        [
            OutputTensor(
                # there are few names: each answer need not have its own
                sys.intern(output.name),
                sys.intern(output.datatype),
                output.shape,
                bytes(output.data),
            )
            for output in outputs
        ]
    )
    return Kept(tensors, parameters)
