"""What a model is asked while it is tuned, and whether two backends answer the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import structs

from penstock.errors import InvalidRequest
from penstock.model_config import ConfigDict, Tensor
from penstock.types import Array
from penstock.workers.warmup_data import one_row
from penstock.workers.warmup_samples import Sample, WarmupInput, parse

RELATIVE: Final = 1e-3
"""How far answers of floats may be apart, by the largest of the output's elements."""


def sample_inputs(
    complete: ConfigDict, model_dir: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """One row for each input: those of the first warm-up sample, or random ones of the shapes given, where the
    configuration has free ones.

    Raises InvalidRequest that names the input whose shape is not known, LoadFailed where a sample's file can't be used.
    """
    config = parse(complete)
    if config.model_warmup and not shapes:
        return one_row(config.input, config.model_warmup[0], model_dir)
    wanted = {tensor.name: shapes.get(tensor.name, tensor.dims) for tensor in config.input}
    for name in shapes.keys() - wanted.keys():
        known = ", ".join(wanted)
        raise InvalidRequest(f"--shape names {name!r}, which is no input: expected one of {known}")
    needed = [tensor for tensor in config.input if not tensor.optional or tensor.name in shapes]
    for tensor in needed:
        _check(tensor, wanted[tensor.name])
    given = {t.name: WarmupInput(random_data=True, dims=wanted[t.name]) for t in needed}
    tensors = [structs.replace(t, dims=wanted[t.name]) for t in needed]
    return one_row(tensors, Sample(inputs=given), model_dir)


def _check(tensor: Tensor, shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(tensor.dims) and all(
        free in (-1, size) for size, free in zip(shape, tensor.dims, strict=True)
    )
    if not fits:
        raise InvalidRequest(
            f"--shape {tensor.name}:{_text(shape)} does not fit dims {list(tensor.dims)}"
        )
    if -1 in shape:
        example = _text([16 if size == -1 else size for size in shape])
        raise InvalidRequest(
            f"input {tensor.name!r} has dims {list(shape)}: say what requests have, such as"
            f" --shape {tensor.name}:{example}, or give the model a warm-up sample"
        )


def _text(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def difference(expected: Mapping[str, Array], found: Mapping[str, Array]) -> str:
    """What is not the same, for a person; empty: the answers agree."""
    for name, array in expected.items():
        other = found.get(name)
        if other is None or other.shape != array.shape or other.dtype != array.dtype:
            return f"output {name!r} has another shape or datatype"
        if array.dtype.kind in "fV" or array.dtype.name == "bfloat16":
            if where := _floats_differ(array.astype(np.float64), other.astype(np.float64)):
                return f"output {name!r} differs {where}"
        elif not np.array_equal(array, other):
            return f"output {name!r} differs"
    return ""


def _floats_differ(expected: Array, found: Array) -> str:
    """By how much; empty: not by more than may be. NaN and infinities have to stand at the same places."""
    finite = np.isfinite(expected)
    if not (
        np.array_equal(finite, np.isfinite(found))
        and np.array_equal(expected[~finite], found[~finite], equal_nan=True)
    ):
        return "in its elements that are NaN or infinite"
    a, b = expected[finite], found[finite]
    scale = float(np.max(np.abs(a), initial=0)) or 1.0
    # of the largest doubles the difference itself would not be finite
    apart = float(np.max(np.abs(a / scale - b / scale), initial=0))
    return "" if apart <= RELATIVE else f"by {apart:.2g} of its largest element"
