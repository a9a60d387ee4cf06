"""The `image.…` parameters of a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.image_config import ImageInput, as_clients_see, images_of
from penstock_kernels.images import ImageRecipe

pytestmark = pytest.mark.extension("images")

PLANES: dict[str, Any] = {"name": "X", "data_type": "TYPE_FP32", "dims": [3, 224, 224]}


def config(**texts: str) -> dict[str, Any]:
    """A configuration with these parameters, `__` for a dot, below `image.`."""
    parameters = {
        f"image.{key.replace('__', '.')}": {"string_value": text} for key, text in texts.items()
    }
    return {"max_batch_size": 8, "input": [PLANES], "parameters": parameters}


def test_without_any_nothing_changes() -> None:
    given: dict[str, Any] = {"input": [PLANES], "parameters": {"other": {"string_value": "1"}}}
    assert images_of({}) == images_of(given) == ()
    assert as_clients_see(given) is given


def test_all_keys() -> None:
    images = images_of(
        config(
            a__b__resize="crop",
            a__b__shorter_side="256",
            a__b__antialias="false",
            a__b__mean="0.5, 0.25,1e-1",
            a__b__std="2",
            a__b__size="224, 192",
            X__resize="stretch",
        )
    )
    all_keys = ImageInput("a.b", True, 256, False, (0.5, 0.25, 0.1), (2.0,), (224, 192))
    assert images == (all_keys, ImageInput("X"))


def test_recipes() -> None:
    crop = ImageInput("X", crop=True)
    assert crop.recipe([3, 30, 40]) == ImageRecipe(3, 30, 40, shorter_side=40)
    assert ImageInput("X", size=(5, 6)).recipe([1, -1, 6]) == ImageRecipe(1, 5, 6)


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_clients_see_bytes_of_any_size(max_batch_size: int) -> None:
    given = config(X__resize="stretch") | {"max_batch_size": max_batch_size}
    shown = as_clients_see(given)["input"]
    ragged = max_batch_size > 0
    expected = {"name": "X", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}
    assert shown == [{**expected, "allow_ragged_batch": ragged}]
    assert given["input"] == [PLANES]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"X__resize": "fit"}, "image.X.resize'] is 'fit'; expected 'stretch' or 'crop'"),
        (
            {"X__resize": "stretch", "X__shorter_side": "9"},
            "image.X.shorter_side'] is '9'; expected it only beside resize \"crop\"",
        ),
        (
            {"X__resize": "crop", "X__shorter_side": "0"},
            "image.X.shorter_side'] is '0'; expected a number of pixels from 1 to 32768",
        ),
        (
            {"X__resize": "crop", "X__size": "5"},
            "image.X.size'] is '5'; expected height and width, from 1 to 32768",
        ),
        (
            {"X__resize": "crop", "X__antialias": "no"},
            "image.X.antialias'] is 'no'; expected 'true' or 'false'",
        ),
        (
            {"X__resize": "crop", "X__mean": "0.5,"},
            "image.X.mean'] is '0.5,'; expected a number, or one for each channel with commas"
            " between them",
        ),
        ({"X__resize": "crop", "X__std": "inf"}, "image.X.std'] is 'inf'; expected a number"),
        ({"X__std": "2"}, "image.X.std'] is given; expected image.X.resize beside it"),
        (
            {"X__resized": "crop"},
            "image.X.resized'] is not known; expected image.TENSOR. and one of resize, shorter_side,",
        ),
    ],
)
def test_what_is_wrong(texts: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        images_of(config(**texts))
    assert str(caught.value).startswith(f"parameters['{expected}")


@pytest.mark.parametrize(
    ("image", "dims", "expected"),
    [
        (ImageInput("X"), [3, 8], "resize'] is for dims [3, 8]; expected [C, H, W]"),
        (
            ImageInput("X"),
            [2, 8, 8],
            "resize'] is for dims [2, 8, 8]: channels is 2; expected 1, 3 or 4",
        ),
        (
            ImageInput("X"),
            [3, -1, 8],
            "size'] is not given, and the model's input has any: dims [-1, 8]; expected height and"
            " width",
        ),
        (
            ImageInput("X", size=(9, 8)),
            [3, 8, 8],
            "size'] is [9, 8]; expected [8, 8], as the model's input has",
        ),
        (
            ImageInput("X", crop=True, shorter_side=7),
            [3, 8, 8],
            "shorter_side'] is 7; expected 0, or 8 and more, to cut from",
        ),
        (
            ImageInput("X", std=(1.0, 2.0)),
            [3, 8, 8],
            "std'] is [1.0, 2.0]; expected 1 or 3 finite numbers",
        ),
        (ImageInput("X", std=(0.0,)), [3, 8, 8], "std'] is [0.0]; expected no 0"),
    ],
)
def test_what_does_not_fit_the_model(image: ImageInput, dims: list[int], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        image.recipe(dims)
    assert str(caught.value) == f"parameters['image.X.{expected}"
