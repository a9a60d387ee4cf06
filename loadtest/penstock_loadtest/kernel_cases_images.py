"""Kernels of images and of numbers' formats, for `python -m penstock_loadtest kernels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from ml_dtypes import bfloat16, float8_e4m3fn
from numpy.typing import NDArray
from PIL import Image

from penstock_kernels.convert import from_fp32, to_fp32
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.images import ImageRecipe, preprocess
from penstock_kernels.quantise import absmax_scale, dequantise, quantise, range_scale
from penstock_loadtest.kernel_case import KernelCase

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
SIDE: Final = 224
SHAPES: Final = ((64, 256), (1024, 1024), (4096, 4096))

Array = NDArray[Any]
Pair = tuple[Callable[[Cpu], object], Callable[[], object]]
Make = Callable[[np.random.Generator], Pair]


def by_pillow(image: Array) -> Array:
    """What most code does for a network of ImageNet, without the crop: Pillow resizes, NumPy does the rest."""
    resized = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    scaled = np.asarray(resized, np.float32) / 255
    normalised = (scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def by_numpy(image: Array) -> Array:
    """Bilinear by indices: of four neighbours each."""
    height, width = image.shape[:2]
    y = np.clip((np.arange(SIDE, dtype=np.float32) + 0.5) * (height / SIDE) - 0.5, 0, height - 1)
    x = np.clip((np.arange(SIDE, dtype=np.float32) + 0.5) * (width / SIDE) - 0.5, 0, width - 1)
    top, left = y.astype(int), x.astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, along = (y - top)[:, None, None], (x - left)[None, :, None]
    upper = image[top[:, None], left] * (1 - along) + image[top[:, None], right] * along
    lower = image[bottom[:, None], left] * (1 - along) + image[bottom[:, None], right] * along
    scaled = (upper * (1 - down) + lower * down) / 255
    normalised = (scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(normalised.astype(np.float32).transpose(2, 0, 1))


def image_case(height: int, width: int, antialias: bool) -> KernelCase:
    """One image to three planes."""
    recipe = ImageRecipe(3, SIDE, SIDE, MEAN, STD, antialias=antialias)

    def make(rng: np.random.Generator) -> Pair:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        replaced = by_pillow if antialias else by_numpy
        return lambda on: preprocess(image, recipe, on), lambda: replaced(image)

    name = "image, antialiased (Pillow, then NumPy)" if antialias else "image, of neighbours"
    touched = height * width * 3 + SIDE * SIDE * 3 * 4
    return KernelCase(name, f"{height} × {width} to {SIDE} × {SIDE}", touched, make)  # noqa: RUF001


def array_case(name: str, shape: tuple[int, int], item_bytes: int, pair: Any) -> KernelCase:
    """Of an FP32 array. `item_bytes`: read and written for each element; `pair`: makes the calls from the array."""

    def make(rng: np.random.Generator) -> Pair:
        made: Pair = pair(rng.normal(size=shape).astype(np.float32))
        return made

    size = f"{shape[0]} × {shape[1]}"  # noqa: RUF001
    return KernelCase(name, size, shape[0] * shape[1] * item_bytes, make)


def _narrow(dtype: Any) -> Any:
    def pair(x: Array) -> Pair:
        return lambda on: from_fp32(x, dtype, on), lambda: x.astype(dtype)

    return pair


def _widen_fp16(x: Array) -> Pair:
    short = x.astype(np.float16)
    return lambda on: to_fp32(short, on), lambda: short.astype(np.float32)


def _quantise_int8(x: Array) -> Pair:
    scale = np.abs(x).max() / np.float32(127)
    return (
        lambda on: quantise(x, scale, on),
        lambda: np.clip(np.rint(x / scale), -128, 127).astype(np.int8),
    )


def _quantise_int8_columns(x: Array) -> Pair:
    scale = np.abs(x).max(axis=0) / np.float32(127)
    zero = np.arange(x.shape[1], dtype=np.int8) % np.int8(9)
    return (
        lambda on: quantise(x, scale, on, np.int8, zero, 1),
        lambda: np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8),
    )


def _dequantise_int8(x: Array) -> Pair:
    given, scale = np.clip(x * 40, -128, 127).astype(np.int8), 0.025
    return (
        lambda on: dequantise(given, scale, on),
        lambda: given.astype(np.float32) * scale,
    )


def _quantise_fp8(x: Array) -> Pair:
    scale = np.abs(x).max() / np.float32(448)
    return (
        lambda on: quantise(x, scale, on, float8_e4m3fn),
        lambda: (x / scale).astype(float8_e4m3fn),
    )


def _dequantise_fp8(x: Array) -> Pair:
    given, scale = x.astype(float8_e4m3fn), 0.5
    return (
        lambda on: dequantise(given, scale, on),
        lambda: given.astype(np.float32) * scale,
    )


def _absmax(x: Array) -> Pair:
    return (
        lambda on: absmax_scale(x, on),
        lambda: np.abs(np.where(np.isfinite(x), x, 0)).max() / np.float32(127),
    )


def _range(x: Array) -> Pair:
    def by_numpy() -> object:
        finite = np.where(np.isfinite(x), x, 0)
        low, high = min(finite.min(), 0), max(finite.max(), 0)
        scale = (high - low) / 255
        return scale, np.clip(np.rint(-128 - low / scale), -128, 127)

    return lambda on: range_scale(x, on), by_numpy


ARRAYS: Final[tuple[tuple[str, int, Any], ...]] = (
    ("FP32 to FP16", 6, _narrow(np.float16)),
    ("FP16 to FP32", 6, _widen_fp16),
    ("FP32 to BF16 (ml_dtypes)", 6, _narrow(bfloat16)),
    ("quantise to int8", 5, _quantise_int8),
    ("quantise to int8, a scale and zero point a column", 5, _quantise_int8_columns),
    ("dequantise int8", 5, _dequantise_int8),
    ("quantise to E4M3FN (ml_dtypes)", 5, _quantise_fp8),
    ("dequantise E4M3FN (ml_dtypes)", 5, _dequantise_fp8),
    ("absmax scale", 4, _absmax),
    ("range scale", 4, _range),
)


def _cases() -> Iterator[KernelCase]:
    for height, width in ((32, 32), (480, 640), (1080, 1920)):
        for antialias in (True, False):
            yield image_case(height, width, antialias)
    for name, item_bytes, pair in ARRAYS:
        for shape in SHAPES:
            yield array_case(name, shape, item_bytes, pair)


CASES: tuple[KernelCase, ...] = tuple(_cases())
