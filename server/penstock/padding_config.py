"""Padding to bucket sizes, as the `padding.…` keys among a configuration's `parameters` ask for it.

padding.IN.buckets      "16, 32, 64", or "powers_of_two"
padding.IN.dimension    which of the input's `dims`; left out: the only one of any size
padding.IN.value        what is put behind the end; left out: 0
padding.IN.mask         the model's input that gets 1 for what a client sent and 0 for what was put behind it
padding.OUT.cut_to      the padded input whose own size the output is cut to
padding.OUT.cut_dimension   which of the output's `dims`; left out: the only one of any size
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from penstock.errors import ConfigError
from penstock.model_config import ANY_SIZE, ConfigDict
from penstock.tensor_parameters import Problem, by_tensor

PREFIX: Final = "padding."
POWERS_OF_TWO: Final = "powers_of_two"
INPUT_KEYS: Final = ("buckets", "dimension", "value", "mask")
OUTPUT_KEYS: Final = ("cut_to", "cut_dimension")
MAX_BUCKET: Final = 2**31


@dataclass(frozen=True, slots=True)
class PaddedInput:
    """An input that is padded in one dimension."""

    name: str
    buckets: tuple[int, ...]
    """Ascending; empty: the powers of two."""
    dimension: int | None = None
    """Index into `dims`; None: the only one of any size."""
    value: float = 0.0
    mask: str = ""
    """Empty: none."""

    def size(self, length: int) -> int:
        """What `length` is padded to. Longer ones than the last bucket stay as they are."""
        if not self.buckets:
            return 1 << max(length - 1, 0).bit_length()
        place = bisect_left(self.buckets, length)
        return self.buckets[place] if place < len(self.buckets) else length


@dataclass(frozen=True, slots=True)
class CutOutput:
    """An output whose requests get no more of a dimension than they sent of an input's."""

    name: str
    source: str
    """A padded input."""
    dimension: int | None = None
    """Index into `dims`; None: the only one of any size."""


@dataclass(frozen=True, slots=True)
class Padding:
    """All of a model's."""

    inputs: tuple[PaddedInput, ...] = ()
    outputs: tuple[CutOutput, ...] = ()

    @property
    def masks(self) -> tuple[str, ...]:
        """Inputs that the server makes: clients don't see them."""
        return tuple(each.mask for each in self.inputs if each.mask)


def padding_of(config: ConfigDict) -> Padding:
    """What the configuration says. Raises ConfigError, naming key and value."""
    padding, problems = read_padding(config)
    for key, text in problems:
        raise ConfigError(f"parameters[{key!r}] {text}")
    return padding


def read_padding(config: ConfigDict) -> tuple[Padding, list[Problem]]:
    """What the configuration says, but for what is wrong, and what that is."""
    tensors, problems = by_tensor(config, PREFIX, (*INPUT_KEYS, *OUTPUT_KEYS))
    inputs, outputs = [], []
    for name, texts in tensors.items():
        problems += _unpaired(name, texts)
        if "buckets" in texts:
            dimension = _index(name, "dimension", texts, problems)
            value = _value(name, texts, problems)
            buckets = _buckets(name, texts["buckets"], problems)
            inputs.append(PaddedInput(name, buckets, dimension, value, texts.get("mask", "")))
        if "cut_to" in texts:
            dimension = _index(name, "cut_dimension", texts, problems)
            outputs.append(CutOutput(name, texts["cut_to"], dimension))
    return Padding(tuple(inputs), tuple(outputs)), problems


def dimension_of(dims: Sequence[int], dimension: int | None) -> int | None:
    """The dimension that is meant, in a tensor with these dims; None where none of any size is."""
    free = [index for index, size in enumerate(dims) if size == ANY_SIZE]
    if dimension is None:
        return free[0] if len(free) == 1 else None
    return dimension if dimension in free else None


def _unpaired(name: str, texts: Mapping[str, str]) -> Iterator[Problem]:
    for main, *others in (INPUT_KEYS, OUTPUT_KEYS):
        for key in others:
            if key in texts and main not in texts:
                yield f"{PREFIX}{name}.{key}", f"is given; expected {PREFIX}{name}.{main} beside it"
    for key in ("mask", "cut_to"):
        if texts.get(key) == "":
            yield f"{PREFIX}{name}.{key}", "is empty; expected the name of an input"


def _buckets(name: str, text: str, problems: list[Problem]) -> tuple[int, ...]:
    if text.strip() == POWERS_OF_TWO:
        return ()
    sizes = [part.strip() for part in text.split(",")]
    if all(size.isascii() and size.isdecimal() and len(size) <= 10 for size in sizes):
        buckets = tuple(map(int, sizes))
        if (
            buckets[0] > 0
            and buckets[-1] <= MAX_BUCKET
            and all(a < b for a, b in pairwise(buckets))
        ):
            return buckets
    problems.append(
        (
            f"{PREFIX}{name}.buckets",
            f"is {text[:40]!r}; expected ascending sizes with commas between them, or {POWERS_OF_TWO!r}",
        )
    )
    return (1,)


def _index(name: str, key: str, texts: Mapping[str, str], problems: list[Problem]) -> int | None:
    text = texts.get(key)
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 2:
        return int(text)
    expected = "expected an index into the tensor's dims, 0 for the first"
    problems.append((f"{PREFIX}{name}.{key}", f"is {text[:40]!r}; {expected}"))
    return None


def _value(name: str, texts: Mapping[str, str], problems: list[Problem]) -> float:
    text = texts.get("value", "0")
    try:
        # integers as such: floats don't have all those of 64 bits
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        problems.append((f"{PREFIX}{name}.value", f"is {text[:40]!r}; expected a number"))
        return 0.0
