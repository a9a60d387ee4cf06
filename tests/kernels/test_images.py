"""Images to planes, against a float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from PIL import Image

from image_reference import reference
from machines import Machine
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.images import ImageRecipe, preprocess, preprocess_ragged

Array = np.ndarray[Any, Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(1, 1), (1, 9), (7, 1), (5, 6), (31, 17), (224, 224), (301, 97), (333, 500)]


def check(found: Array, expected: Array) -> None:
    """As near as the format is, from values up to about 3."""
    digits = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 2e-3, np.dtype(bfloat16): 2e-2}
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found.astype(np.float64), expected, rtol=digits[found.dtype] / 2, atol=digits[found.dtype]
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("antialias", [True, False], ids=["smooth", "sharp"])
@pytest.mark.parametrize("shorter_side", [0, 40], ids=["stretched", "cropped"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_image(
    size: tuple[int, int],
    antialias: bool,
    shorter_side: int,
    channels: int,
    machine: Machine,
    rng: Any,
) -> None:
    mean, std = (MEAN, STD) if channels == 3 else ((0.5,), (0.25,))
    recipe = ImageRecipe(channels, 29, 32, mean, std, shorter_side, antialias)
    image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    out = machine.empty((channels, 29, 32), np.float32)
    found = machine.get(preprocess(machine.put(image), recipe, machine.on, out), np.float32)
    check(found, reference(image, recipe))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, bfloat16])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_in_all_formats(count: int, dtype: Any, machine: Machine, rng: Any) -> None:
    recipe = ImageRecipe(3, 224, 224, MEAN, STD, 256)
    images = rng.integers(0, 256, (count, 120, 160, 3), dtype=np.uint8)
    out = machine.empty((count, 3, 224, 224), dtype)
    made = preprocess(machine.put(images), recipe, machine.on, out, dtype)
    expected = [reference(image, recipe) for image in images]
    check(machine.get(made, dtype), np.reshape(expected, (count, 3, 224, 224)))


def test_parts_of_larger_images_are_not_copied(machine: Machine, rng: Any) -> None:
    recipe = ImageRecipe(3, 10, 12)
    whole = rng.integers(0, 256, (4, 50, 60, 3), dtype=np.uint8)
    part = machine.put(whole)[1:, 7:41:2, 5:55]
    out = machine.empty((3, 3, 10, 12), np.float32)
    found = machine.get(preprocess(part, recipe, machine.on, out), np.float32)
    check(found, np.stack([reference(image, recipe) for image in whole[1:, 7:41:2, 5:55]]))


def test_mirrored_and_turned_images(cpu: Cpu, rng: Any) -> None:
    recipe = ImageRecipe(3, 10, 12)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for view in (image[::-1], image[:, ::-1], image.transpose(1, 0, 2), image[..., ::-1]):
        check(preprocess(view, recipe, cpu), reference(view, recipe))


@pytest.mark.parametrize("dtype", [np.float32, bfloat16])
def test_images_of_different_sizes(dtype: Any, cpu: Cpu, rng: Any) -> None:
    recipe = ImageRecipe(3, 48, 32, MEAN, STD, 50)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    data = np.concatenate([image.reshape(-1) for image in images])
    found = preprocess_ragged(data, SIZES, recipe, cpu, dtype=dtype)
    check(found, np.stack([reference(image, recipe) for image in images]))


def test_it_is_what_pillow_makes(cpu: Cpu, rng: Any) -> None:
    """But for what Pillow rounds to bytes, twice."""
    image = rng.integers(0, 256, (97, 133, 3), dtype=np.uint8)
    for width, height in ((224, 224), (40, 30), (133, 20)):
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        found = preprocess(image, ImageRecipe(3, height, width), cpu)
        assert np.abs(found * 255 - np.asarray(resized, np.float64).transpose(2, 0, 1)).max() < 1.1


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 30),
    st.booleans(),
)
def test_any_size(
    size: tuple[int, int], wanted: tuple[int, int], more: int, antialias: bool
) -> None:
    shorter = max(wanted) + more if more else 0
    recipe = ImageRecipe(3, *wanted, shorter_side=shorter, antialias=antialias)
    image = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
    check(preprocess(image, recipe, Cpu(1)), reference(image, recipe))


def test_imagenet_s_recipe_cuts_where_torchvision_does() -> None:
    recipe = ImageRecipe(3, 224, 224, shorter_side=256)
    assert recipe.place(480, 640) == (256, 341, 16, 58)
    assert recipe.place(640, 480) == (341, 256, 58, 16)
    assert recipe.place(10, 10) == (256, 256, 16, 16)
    assert ImageRecipe(3, 8, 9).place(480, 640) == (8, 9, 0, 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"channels": 2}, "channels is 2; expected 1, 3 or 4"),
        ({"height": 0}, "height and width are 0 and 5; expected 1 up"),
        ({"mean": (1.0, 2.0)}, r"mean is \[1.0, 2.0\]; expected 1 or 3 finite numbers"),
        ({"std": (float("nan"),)}, r"std is \[nan\]; expected 1 or 3 finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, r"std is \[1.0, 0.0, 1.0\]; expected no 0"),
        ({"shorter_side": 4}, "shorter_side is 4; expected 0, or 5"),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ImageRecipe(**{"channels": 3, "height": 4, "width": 5, **changes})


def test_wrong_images(cpu: Cpu) -> None:
    recipe = ImageRecipe(3, 4, 5)
    with pytest.raises(ValueError, match=r"shape \[2, 2, 4\]; expected \[N,H,W,3\]"):
        preprocess(np.zeros((2, 2, 4), np.uint8), recipe, cpu)
    with pytest.raises(ValueError, match="images are float32; expected uint8"):
        preprocess(np.zeros((2, 2, 3), np.float32), recipe, cpu)
    with pytest.raises(ValueError, match="an image has size 0 x 2; expected at least 1 x 1"):
        preprocess(np.zeros((0, 2, 3), np.uint8), recipe, cpu)
    with pytest.raises(ValueError, match=r"shape \[11\]; expected \[12\]"):
        preprocess_ragged(np.zeros(11, np.uint8), [(2, 2)], recipe, cpu)
    pixels = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(TypeError, match="out is of float64; expected float32, float16, bfloat16"):
        preprocess(pixels, recipe, cpu, np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match=r"out has shape \[1\]; expected \[3, 4, 5\]"):
        preprocess(pixels, recipe, cpu, np.zeros(1, np.float32))
