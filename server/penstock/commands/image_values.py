"""Pictures as input tensors: in the size, layout and datatype that the model asks for."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from penstock.errors import InvalidRequest
from penstock.types import NUMPY_DTYPES, Array

FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_MODES: Final = {1: "L", 3: "RGB"}
_MAGIC: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor holds a picture. -1: the picture's own size."""

    channels: int
    height: int
    width: int
    channels_at: int | None
    """The axis of the channels: 0, 2, or None where there is none."""


def is_image(content: bytes) -> bool:
    """Whether this is a PNG or JPEG file."""
    return content.startswith(_MAGIC)


def image_array(content: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    """The picture as one item of a tensor of that wire shape, without a batch dimension.

    Floating datatypes get 0..1, UINT8 gets 0..255. Raises InvalidRequest where the file can't be
    read or the tensor can't hold a picture.
    """
    layout = layout_of(shape)
    if layout is None or (datatype not in FLOATS and datatype != "UINT8"):
        raise InvalidRequest(f"a picture does not fit into {datatype} {list(shape)}")
    try:
        with Image.open(BytesIO(content)) as image:
            picture = ImageOps.exif_transpose(image).convert(_MODES[layout.channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"the picture can't be read: {error}") from error
    pixels = np.asarray(_resized(picture, layout)).reshape(*_size(picture, layout), -1)
    if layout.channels_at is None:
        pixels = pixels[:, :, 0]
    elif layout.channels_at == 0:
        pixels = pixels.transpose(2, 0, 1)
    return (pixels / 255).astype(NUMPY_DTYPES[datatype]) if datatype in FLOATS else pixels


def layout_of(shape: tuple[int, ...]) -> Layout | None:
    """How a tensor of that wire shape ([batch,] CHW, HWC or HW) holds a picture; None: it can't."""
    dims = shape[1:] if len(shape) == 4 else shape
    match dims:
        case (1 | 3 as channels, height, width):
            return Layout(channels, height, width, channels_at=0)
        case (height, width, 1 | 3 as channels):
            return Layout(channels, height, width, channels_at=2)
        case (-1, height, width):
            return Layout(1, height, width, channels_at=None)
        case (height, width) if height != -1:
            return Layout(1, height, width, channels_at=None)
    return None


def _size(picture: Image.Image, layout: Layout) -> tuple[int, int]:
    height = picture.height if layout.height == -1 else layout.height
    width = picture.width if layout.width == -1 else layout.width
    return height, width


def _resized(picture: Image.Image, layout: Layout) -> Image.Image:
    height, width = _size(picture, layout)
    shrinks = height <= picture.height and width <= picture.width
    # The mean over a box gives back the pixels of a picture that was enlarged by a whole factor.
    filter_ = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return picture.resize((width, height), filter_)
