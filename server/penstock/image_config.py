"""Inputs that take images of any size, as the `image.…` keys among a configuration's `parameters` ask for it.

image.IN.resize         "stretch", or "crop": the shorter side is resized, and the middle cut out
image.IN.shorter_side   with "crop": what the shorter side is resized to; left out: the larger of height and width
image.IN.antialias      "false": of the nearest pixels only, also where an image becomes smaller; left out: "true"
image.IN.mean           "0.485, 0.456, 0.406", or one number, after the division by 255; left out: 0
image.IN.std            as `mean`; left out: 1
image.IN.size           "224, 224": height and width, where the model takes any
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from penstock.errors import ConfigError
from penstock.model_config import ANY_SIZE, ConfigDict
from penstock.tensor_parameters import Problem, by_tensor
from penstock_kernels.images import ImageRecipe

PREFIX: Final = "image."
KEYS: Final = ("resize", "shorter_side", "antialias", "mean", "std", "size")
WAYS: Final = ("stretch", "crop")
TYPES: Final = ("TYPE_FP32", "TYPE_FP16", "TYPE_BF16")
"""Of the model's input."""
MAX_SIDE: Final = 2**15
MAX_SENT_SIDE: Final = 2**16
"""Of what clients send: a line of pixels is weighed by floats, several times its size in memory and time."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An input that clients send images to."""

    name: str
    crop: bool = False
    shorter_side: int = 0
    """0: as needed."""
    antialias: bool = True
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    """Height and width; None: those of the model."""

    def recipe(self, dims: Sequence[int]) -> ImageRecipe:
        """For a model's input with these `dims`. Raises ConfigError that begins with the key."""
        if len(dims) != 3:
            raise ConfigError(f"{self._key('resize')} is for dims {list(dims)}; expected [C, H, W]")
        sides = self._sides(dims[1:])
        shorter = (self.shorter_side or max(sides)) if self.crop else 0
        try:
            return ImageRecipe(dims[0], *sides, self.mean, self.std, shorter, self.antialias)
        except ValueError as error:
            field, _, problem = str(error).partition(" ")
            if field in KEYS:
                raise ConfigError(f"{self._key(field)} {problem}") from None
            raise ConfigError(f"{self._key('resize')} is for dims {list(dims)}: {error}") from None

    def _sides(self, dims: Sequence[int]) -> tuple[int, int]:
        if self.size is None:
            if ANY_SIZE in dims:
                text = f"is not given, and the model's input has any: dims {list(dims)}"
                raise ConfigError(f"{self._key('size')} {text}; expected height and width")
            return dims[0], dims[1]
        if any(dim not in (ANY_SIZE, own) for dim, own in zip(dims, self.size, strict=True)):
            text = f"is {list(self.size)}; expected {list(dims)}, as the model's input has"
            raise ConfigError(f"{self._key('size')} {text}")
        return self.size

    def _key(self, key: str) -> str:
        return f"parameters['{PREFIX}{self.name}.{key}']"


def images_of(config: ConfigDict) -> tuple[ImageInput, ...]:
    """What the configuration says. Raises ConfigError, naming key and value."""
    images, problems = read_images(config)
    for key, text in problems:
        raise ConfigError(f"parameters[{key!r}] {text}")
    return images


def read_images(config: ConfigDict) -> tuple[tuple[ImageInput, ...], list[Problem]]:
    """What the configuration says, but for what is wrong, and what that is."""
    tensors, problems = by_tensor(config, PREFIX, KEYS)
    images = []
    for name, texts in tensors.items():
        reader = _Reader(name, texts, problems)
        if "resize" in texts:
            images.append(reader.image())
        else:
            key = f"{PREFIX}{name}.{next(iter(texts))}"
            problems.append((key, f"is given; expected {PREFIX}{name}.resize beside it"))
    return tuple(images), problems


def image_names(config: ConfigDict) -> frozenset[str]:
    """Inputs that clients send images to."""
    return frozenset(image.name for image in read_images(config)[0])


def as_clients_see(config: ConfigDict) -> ConfigDict:
    """The configuration with the inputs that clients send: UINT8 [H, W, C] of any height and width in place of those
    that images are made to. Requests of different sizes share a batch. Of what it has given it changes nothing."""
    names = image_names(config)
    if not names:
        return config
    ragged = bool(config.get("max_batch_size"))
    inputs = [
        _shown(tensor, ragged) if tensor["name"] in names and _takes_planes(tensor) else tensor
        for tensor in config.get("input") or ()
    ]
    return config | {"input": inputs}


def _takes_planes(tensor: Mapping[str, Any]) -> bool:
    return len(tensor["dims"]) == 3 and tensor["data_type"] in TYPES


def _shown(tensor: Mapping[str, Any], ragged: bool) -> dict[str, Any]:
    changed = {
        "data_type": "TYPE_UINT8",
        "dims": [ANY_SIZE, ANY_SIZE, tensor["dims"][0]],
        "allow_ragged_batch": ragged,
    }
    return {**tensor, **changed}


class _Reader:
    """Of what is said of one input."""

    def __init__(self, name: str, texts: Mapping[str, str], problems: list[Problem]) -> None:
        self._name = name
        self._texts = texts
        self._problems = problems

    def image(self) -> ImageInput:
        crop = self._one_of("resize", WAYS, "stretch") == "crop"
        if not crop and "shorter_side" in self._texts:
            self._wrong("shorter_side", 'expected it only beside resize "crop"')
        sides = self._whole("shorter_side", 1) if crop else ()
        size = self._whole("size", 2)
        return ImageInput(
            self._name,
            crop,
            sides[0] if sides else 0,
            self._one_of("antialias", ("true", "false"), "true") == "true",
            self._numbers("mean", (0.0,)),
            self._numbers("std", (1.0,)),
            (size[0], size[1]) if size else None,
        )

    def _one_of(self, key: str, known: Sequence[str], default: str) -> str:
        text = self._texts.get(key, default).strip()
        if text not in known:
            self._wrong(key, f"expected {' or '.join(map(repr, known))}")
            return default
        return text

    def _whole(self, key: str, count: int) -> tuple[int, ...]:
        """Empty where it is not given, or wrong."""
        parts = list(self._parts(key))
        if not parts:
            return ()
        if len(parts) == count and all(p.isascii() and p.isdecimal() and len(p) < 6 for p in parts):
            sizes = tuple(map(int, parts))
            if all(1 <= size <= MAX_SIDE for size in sizes):
                return sizes
        many = "height and width, from" if count == 2 else "a number of pixels from"
        self._wrong(key, f"expected {many} 1 to {MAX_SIDE}")
        return ()

    def _numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        parts = list(self._parts(key))
        try:
            numbers = tuple(map(float, parts)) or default
        except ValueError:
            numbers = (float("nan"),)
        if len(numbers) > 4 or not all(map(isfinite, numbers)):
            self._wrong(key, "expected a number, or one for each channel with commas between them")
            return default
        return numbers

    def _parts(self, key: str) -> Iterator[str]:
        if key in self._texts:
            yield from (part.strip() for part in self._texts[key].split(","))

    def _wrong(self, key: str, expected: str) -> None:
        text = f"is {self._texts[key][:40]!r}; {expected}"
        self._problems.append((f"{PREFIX}{self._name}.{key}", text))
