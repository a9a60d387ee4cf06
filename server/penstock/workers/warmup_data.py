"""What a warm-up sample feeds to a model: zeros, random values, or the bytes of a file."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from penstock.errors import InvalidRequest, LoadFailed
from penstock.model_config import Tensor
from penstock.tensors import as_array, expected_nbytes
from penstock.types import NUMPY_DTYPES, Array
from penstock.workers.warmup_samples import Sample, WarmupInput

log = logging.getLogger(__name__)

FOLDER: Final = "warmup"
"""Where data files lie in the model's folder, as in Triton."""

INTEGERS_BELOW: Final = 128
"""Random integers stay small: every datatype has them, and models take many of them for indices or sizes."""

DIGITS: Final = 8
"""Of random strings."""


def one_row(inputs: Sequence[Tensor], sample: Sample, model_dir: Path) -> dict[str, Array]:
    """Input → array without a batch dimension, for each input that the sample gives.

    Raises LoadFailed, naming file and sizes, where a data file can't be used.
    """
    return {
        tensor.name: _array(tensor, sample.inputs[tensor.name], model_dir)
        for tensor in inputs
        if tensor.name in sample.inputs
    }


def _array(tensor: Tensor, given: WarmupInput, model_dir: Path) -> Array:
    shape = given.dims or tensor.dims
    if given.input_data_file is not None:
        return _from_file(tensor.datatype, shape, model_dir, given.input_data_file)
    if given.random_data is not None:
        # seeded by the name: a sample's inputs come in any order, and each load shall see the same
        generator = np.random.default_rng(zlib.crc32(tensor.name.encode()))
        return _random(tensor.datatype, shape, generator)
    if tensor.datatype == "BYTES":
        return np.full(shape, b"", np.object_)
    return np.zeros(shape, NUMPY_DTYPES[tensor.datatype])


def _random(datatype: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Floats from 0 to 1, integers below INTEGERS_BELOW, strings of DIGITS digits.

    Triton has any bytes for numbers, NaN among them, and empty strings. Digits are what most models that parse their
    strings can read: numbers, JSON, hexadecimal, base64.
    """
    if datatype == "BYTES":
        numbers = generator.integers(10 ** (DIGITS - 1), 10**DIGITS, shape)
        texts: Array = numbers.astype(f"S{DIGITS}").astype(np.object_)
        return texts
    if datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(np.bool_)
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return generator.random(shape, np.float32).astype(NUMPY_DTYPES[datatype])
    return generator.integers(0, INTEGERS_BELOW, shape, NUMPY_DTYPES[datatype])


def _from_file(datatype: str, shape: tuple[int, ...], model_dir: Path, name: str) -> Array:
    """Raw little-endian bytes, BYTES with their length prefixes. As in Triton, a file may be longer than needed."""
    path = model_dir / FOLDER / name
    shown = f"{FOLDER}/{name}"
    try:
        inside = path.resolve().is_relative_to(model_dir.resolve())
        data = path.read_bytes() if inside else b""
    except OSError as error:
        raise LoadFailed(f"{shown} can't be read: {error.strerror}") from error
    if not inside:
        raise LoadFailed(f"{shown} is outside the model's folder")
    needed = expected_nbytes(datatype, shape)
    wanted = f"{datatype} of dims {list(shape)}"
    if needed is None:
        try:
            return as_array(datatype, shape, data)
        except InvalidRequest as error:
            raise LoadFailed(f"{shown}, {len(data)} bytes, is no {wanted}: {error}") from error
    if len(data) < needed:
        raise LoadFailed(f"{shown} has {len(data)} bytes; expected {needed} for {wanted}")
    if len(data) > needed:
        log.warning("%s has %d bytes; the first %d are used", shown, len(data), needed)
    return as_array(datatype, shape, data[:needed])
