"""Images of bytes, to what networks take: resized, normalised, a plane a channel, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock_kernels.checks import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    float_suffix,
    require_given,
    require_out,
)
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner

DTYPES: Final = (FLOAT32, FLOAT16, BFLOAT16)
"""In the order of the twin's kinds."""
CHANNELS: Final = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """What becomes of an image: resized with half-pixel centres, then (byte / 255 - mean) / std."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = (0.0,)
    """One for all channels, or one each."""
    std: tuple[float, ...] = (1.0,)
    """One for all channels, or one each."""
    shorter_side: int = 0
    """What the shorter side is resized to, before the middle is cut out; 0: all of the image is stretched to fit."""
    antialias: bool = True
    """Each pixel is made of all that it covers, as Pillow does; False: of its neighbours only, as OpenCV's
    INTER_LINEAR does. It makes a difference where images become smaller."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming field and value."""
        if self.channels not in CHANNELS:
            raise ValueError(f"channels is {self.channels}; expected 1, 3 or 4")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"height and width are {self.height} and {self.width}; expected 1 up")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels) or not np.isfinite(values).all():
                expected = f"expected 1 or {self.channels} finite numbers"
                raise ValueError(f"{name} is {list(values)}; {expected}")
        if 0 in self.std:
            raise ValueError(f"std is {list(self.std)}; expected no 0")
        if 0 < self.shorter_side < max(self.height, self.width) or self.shorter_side < 0:
            raise ValueError(
                f"shorter_side is {self.shorter_side}; expected 0, or {max(self.height, self.width)}"
                " and more, to cut from"
            )

    def place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Of an image of that size: its resized height and width, and which of its lines and columns come first.

        As torchvision's Resize and CenterCrop have them.
        """
        if not self.shorter_side:
            return self.height, self.width, 0, 0
        if height < width:
            resized = self.shorter_side, self.shorter_side * width // height
        else:
            resized = self.shorter_side * height // width, self.shorter_side
        top, left = (
            round((whole - part) / 2)
            for whole, part in zip(resized, (self.height, self.width), strict=True)
        )
        return *resized, top, left

    @property
    def factor(self) -> npt.NDArray[np.float32]:
        """What a channel's bytes are multiplied by."""
        return (1 / (255 * self._each(self.std))).astype(np.float32)

    @property
    def added(self) -> npt.NDArray[np.float32]:
        """What is added to a channel then."""
        return (-self._each(self.mean) / self._each(self.std)).astype(np.float32)

    def _each(self, values: tuple[float, ...]) -> npt.NDArray[np.float64]:
        return np.broadcast_to(np.array(values, np.float64), self.channels)


def preprocess(
    images: Array, recipe: ImageRecipe, on: Runner, out: Array | None = None, dtype: Any = None
) -> Array:
    """UINT8 [H, W, C], or [N, H, W, C] → [C, height, width], or [N, C, height, width], of FP32, FP16 or BF16.

    A part of larger images is taken from where it lies, as long as pixels of a line lie side by side. Raises
    ValueError for arrays of other shapes, and images without a pixel.
    """
    shape = tuple(images.shape)
    single = len(shape) == 3
    if len(shape) not in (3, 4) or shape[-1] != recipe.channels:
        raise ValueError(f"images have shape {list(shape)}; expected [N,H,W,{recipe.channels}]")
    count = 1 if single else shape[0]
    sizes = [(int(shape[-3]), int(shape[-2]))] * count
    one = (recipe.channels, recipe.height, recipe.width)
    if not isinstance(on, Cpu):
        _check(sizes)
        on_gpu: Array = _on_gpu(images, recipe, on, out, one if single else (count, *one))
        return on_gpu
    _check_bytes(images.dtype)
    images = images[np.newaxis] if single else images
    pitches = images.strides
    if pitches[3] != 1 or pitches[2] != recipe.channels or pitches[0] < 0 or pitches[1] < 0:
        images = np.ascontiguousarray(images)
        pitches = images.strides
    span = sum((size - 1) * pitch for size, pitch in zip(images.shape, pitches, strict=True)) + 1
    flat = np.lib.stride_tricks.as_strided(
        images.reshape(-1) if images.size == 0 else images,
        (span if images.size else 0,),
        (1,),
        writeable=False,
    )
    begins = [(index * pitches[0], pitches[1]) for index in range(count)]
    result = _result(one if single else (count, *one), out, dtype)
    _run(flat, begins, sizes, recipe, on, result.reshape(count, *one))
    return result


def preprocess_ragged(
    data: Array,
    sizes: Sequence[tuple[int, int]],
    recipe: ImageRecipe,
    on: Cpu,
    out: Array | None = None,
    dtype: Any = None,
) -> Array:
    """Images of any sizes, whose UINT8 elements lie side by side → [N, C, height, width]. `sizes`: each one's height
    and width. Raises ValueError where there are more or fewer bytes than these say, and for images without a pixel."""
    _check_bytes(data.dtype)
    counts = [prod(size) * recipe.channels for size in sizes]
    if data.ndim != 1 or data.size != sum(counts):
        raise ValueError(
            f"the images' data have shape {list(data.shape)}; expected [{sum(counts)}], as their"
            " sizes say"
        )
    begins = []
    begin = 0
    for count, (_, width) in zip(counts, sizes, strict=True):
        begins.append((begin, width * recipe.channels))
        begin += count
    shape = (len(sizes), recipe.channels, recipe.height, recipe.width)
    result = _result(shape, out, dtype)
    _run(np.ascontiguousarray(data), begins, sizes, recipe, on, result)
    return result


def _run(
    data: Array,
    begins: Sequence[tuple[int, int]],
    sizes: Sequence[tuple[int, int]],
    recipe: ImageRecipe,
    on: Cpu,
    out: Array,
) -> None:
    from penstock_kernels.cpu import images

    _check(sizes)
    if not sizes:
        return
    places = np.array(
        [(*begin, *size, *recipe.place(*size)) for begin, size in zip(begins, sizes, strict=True)],
        np.int64,
    )
    factor, added = recipe.factor, recipe.added
    antialias, kind = recipe.antialias, DTYPES.index(out.dtype)
    # each twin is compiled once, not for each kind of arrays: all are given
    wide = out if kind == 0 else np.empty((0, 0, 0, 0), np.float32)
    short = np.empty((0, 0, 0, 0), np.uint16) if kind == 0 else out.view(np.uint16)
    data = data.view()
    data.flags.writeable = False
    touched = sum(map(prod, sizes)) * recipe.channels + out.nbytes
    on.split(
        len(sizes) * recipe.height,
        touched,
        lambda begin, end: images.preprocess(
            data, places, antialias, factor, added, wide, short, kind, begin, end
        ),
    )


def _on_gpu(images: Any, recipe: ImageRecipe, on: Any, out: Any, out_shape: tuple[int, ...]) -> Any:
    from penstock_kernels.cuda.arrays import checked_pointer, dtype_of, strides_of, view_of

    out, view, strides = require_given(out), view_of(images), list(strides_of(images))
    _check_bytes(dtype_of(images))
    count, pitch = (1, 0) if len(view.shape) == 3 else (view.shape[0], strides[0])
    if strides[-1] != 1 or strides[-2] != recipe.channels:
        raise ValueError(f"strides of the images are {strides}; expected pixels side by side")
    height, width = (int(size) for size in view.shape[-3:-1])
    resized_height, resized_width, top, left = recipe.place(height, width)
    each = [
        [values[min(index, recipe.channels - 1)] for index in range(4)]
        for values in (recipe.factor, recipe.added)
    ]
    pixels = count * recipe.height * recipe.width
    kind = dtype_of(out)
    on.run(
        "images",
        f"preprocess_{float_suffix(kind, 'out')}",
        -(-pixels // 256),
        int(view.ptr),
        np.int64(pitch),
        np.int64(strides[-3]),
        *map(np.int32, (count, recipe.channels, height, width, resized_height, resized_width)),
        *map(np.int32, (top, left, recipe.height, recipe.width, recipe.antialias)),
        *each[0],
        *each[1],
        checked_pointer(out, kind, "out", out_shape),
    )
    return out


def _check(sizes: Sequence[tuple[int, int]]) -> None:
    for height, width in sizes:
        if height < 1 or width < 1:
            raise ValueError(f"an image has size {height} x {width}; expected at least 1 x 1")


def _check_bytes(dtype: np.dtype[Any]) -> None:
    if dtype != np.uint8:
        raise ValueError(f"images are {dtype}; expected uint8")


def _result(shape: tuple[int, ...], out: Array | None, dtype: Any) -> Array:
    kind = np.dtype(dtype or FLOAT32) if out is None else out.dtype
    float_suffix(kind, "out")
    return np.empty(shape, kind) if out is None else require_out(out, shape, kind)
