"""A PyTorch model that is loaded, of whatever kind, and what it says of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Part:
    """An input or an output, as far as the model says what it is."""

    name: str = ""
    """An input's argument or key, an output's key; empty: it has none."""
    data_type: str = ""
    """Triton's spelling; empty: not known."""
    shape: tuple[int, ...] | None = None
    """With the batch dimension, -1 is any size; None: not known."""
    optional: bool = False
    """`forward` has a default for it."""
    keyword: bool = False
    """It has to be given by its name: an argument that is no tensor comes before it, or `forward` asks for that."""


Call = Callable[[Sequence[Any], Mapping[str, Any]], Any]
"""Tensors in the model's order, and others by name → what the model returns."""


@dataclass(frozen=True, slots=True)
class Program:
    """A model that is loaded."""

    call: Call
    inputs: Sequence[Part] | None = None
    """In the model's order; None: it takes any number."""
    outputs: Sequence[Part] | None = None
    """None: it is seen when it has run."""
    takes_dict: bool = False
    """Its only argument is a dict of all inputs, which have the names that the configuration gives them."""
    min_rows: int = 1
    """Smaller batches are padded."""
    max_rows: int | None = None
    """None: any number."""
    module: torch.nn.Module | None = None
    """What has weights that can be moved; None: they are where they are."""
    casts: bool = True
    """Whether autocast has a say in it."""
    strides: bool = True
    """Whether its inputs may have any strides; False: those of the example only, which are C's."""


def plain(function: Callable[..., Any]) -> Call:
    """Of what takes the tensors as they are."""

    def call(positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        return function(*positional, **keywords)

    return call
