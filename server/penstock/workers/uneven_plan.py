"""How a request is joined with others of different shapes: what a header and a model's signature say together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np

BITS: Final[Mapping[int, np.dtype[Any]]] = MappingProxyType(
    {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
)
"""Bytes an element → dtype. Elements are copied as they are, whatever they mean."""


class PaddedPlan(msgspec.Struct, frozen=True):
    """How one input of a request is padded."""

    axis: int
    """With the batch dimension."""
    length: int
    """What the client sent."""
    shape: tuple[int, ...]
    """Of one row, padded."""
    dtype: np.dtype[Any]
    """Of the elements' bits."""
    fill: int
    """The bits behind the end."""
    is_source: bool
    """Some output is cut to it."""


class MaskPlan(msgspec.Struct, frozen=True):
    """An input that the server makes: 1 where a client sent something, 0 where it was padded."""

    name: str
    datatype: str
    source: str
    """The padded input."""
    shape: tuple[int, ...]
    """Of one row: ones but for the size that the source is padded to."""


class UnevenPlan(msgspec.Struct, frozen=True):
    """Of one request's header."""

    ragged: frozenset[str]
    padded: Mapping[str, PaddedPlan]
    masks: tuple[MaskPlan, ...]
    nbytes: int
    """What its padded inputs and masks take in a slab."""
