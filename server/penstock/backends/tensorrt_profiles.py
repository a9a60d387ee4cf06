"""The optimisation profiles of an engine: which sizes it takes, and which it is fastest for. Pure.

One profile for each preferred batch size, or one for all; each takes what is above the one before it. Which one a batch
runs with follows from its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.backends.batch_sizes import preferred_sizes
from penstock.backends.completion import says_nothing_of_batching
from penstock.backends.tensorrt_options import FreeDims, Shapes
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

ANY: Final = -1

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The sizes of one input, its batch dimension included."""

    smallest: Dims
    usual: Dims
    largest: Dims

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether the input may have that shape."""
        return len(shape) == len(self.smallest) and all(
            low <= size <= high
            for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """The sizes of all inputs, by name."""

    inputs: tuple[tuple[str, Range], ...]

    def takes(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether a batch of those shapes may run with it."""
        return all(name not in shapes or each.takes(shapes[name]) for name, each in self.inputs)


def profiles(config: ConfigDict, inputs: Mapping[str, Dims], free: FreeDims) -> tuple[Profile, ...]:
    """Those to build, for a network's inputs by name, whose shapes include the batch dimension. Empty: no input has a
    free dimension. Raises LoadFailed that names what is missing or contradicts the model.
    """
    _check_names(inputs, free)
    if not any(ANY in shape for shape in inputs.values()):
        return ()
    batching = bool(config.get("max_batch_size"))
    rows = _rows(config) if batching else ((1, 1, 1),)
    return tuple(
        Profile(
            tuple(
                (name, _range(name, shape, each, batching, free)) for name, shape in inputs.items()
            )
        )
        for each in rows
    )


def best(profiles: Mapping[int, Profile], shapes: Mapping[str, Sequence[int]]) -> int | None:
    """The number of the profile that takes the shapes and is for the smallest; None: none does."""
    fitting = [number for number, profile in profiles.items() if profile.takes(shapes)]
    return min(
        fitting, key=lambda n: [each.largest for _, each in profiles[n].inputs], default=None
    )


def with_rows(config: ConfigDict, given: ConfigDict, profiles: Mapping[int, Profile]) -> ConfigDict:
    """The complete configuration with no more rows than the engine takes. Raises LoadFailed where `given`, what the
    user has written, asks for more."""
    rows = [each.largest[0] for profile in profiles.values() for _, each in profile.inputs]
    if not config["max_batch_size"] or not rows or config["max_batch_size"] <= max(rows):
        return config
    if not says_nothing_of_batching(given):
        raise LoadFailed(
            f"max_batch_size is {config['max_batch_size']}, but the engine takes {max(rows)} rows at most"
        )
    return {**config, "max_batch_size": max(rows)}


def _rows(config: ConfigDict) -> Iterator[tuple[int, int, int]]:
    """Smallest, usual, and largest number of rows of each profile."""
    most = config["max_batch_size"]
    preferred = preferred_sizes(config)
    if not preferred:
        yield 1, most, most
        return
    smallest = 1
    for size in preferred:
        yield smallest, size, size
        smallest = size + 1
    if smallest <= most:
        yield smallest, most, most


def _range(
    name: str, shape: Dims, rows: tuple[int, int, int], batching: bool, free: FreeDims
) -> Range:
    dims = shape[1:] if batching else shape
    given = (free.smallest, free.usual, free.largest)
    words = ("min", "opt", "max")
    low, usual, high = (
        _filled(name, dims, shapes, f"profile_{word}_shapes")
        for shapes, word in zip(given, words, strict=True)
    )
    if not all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True)):
        raise LoadFailed(
            f"input {name!r}: profiles are {list(low)} to {list(high)}, for {list(usual)} above all;"
            " expected min <= opt <= max"
        )
    if not batching:
        return Range(low, usual, high)
    if shape[:1] != (ANY,) and any(count != shape[0] for count in rows):
        raise LoadFailed(
            f"input {name!r}: max_batch_size is {rows[2]}, but the model has shape {list(shape)},"
            " expected a first dimension of any size for the batch"
        )
    return Range((rows[0], *low), (rows[1], *usual), (rows[2], *high))


def _filled(name: str, dims: Dims, given: Shapes, parameter: str) -> Dims:
    if name not in given:
        if ANY in dims:
            raise LoadFailed(
                f"input {name!r} has dims {list(dims)}: an engine must know how large they get;"
                f" expected parameter {parameter!r} with {name}:{'x'.join('8' * len(dims))} or the like"
            )
        return dims
    fits = len(given[name]) == len(dims) and all(
        size in (ANY, wanted) for size, wanted in zip(dims, given[name], strict=True)
    )
    if not fits:
        raise LoadFailed(
            f"parameter {parameter!r} has {name}:{'x'.join(map(str, given[name]))}, but the model has"
            f" dims {list(dims)}"
        )
    return given[name]


def _check_names(inputs: Mapping[str, Dims], free: FreeDims) -> None:
    for word, shapes in (("min", free.smallest), ("opt", free.usual), ("max", free.largest)):
        for name in shapes:
            if name not in inputs:
                raise LoadFailed(
                    f"parameter 'profile_{word}_shapes' has {name!r}, which is no input of the model:"
                    f" expected one of {', '.join(inputs)}"
                )
