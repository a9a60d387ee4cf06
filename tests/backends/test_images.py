"""Images in this process: what a model gets, of one size or several, with and without batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image_models import CROPPED, RECIPES, image_lines, write_image_models, write_image_onnx
from image_reference import reference
from model_files import batch_of, load_spec, whole
from penstock.backends.base import Batch, LoadedModel, RequestInfo
from penstock.backends.registry import load
from penstock.errors import LoadFailed
from penstock.repository.config_file import read_config
from penstock.types import Array, Uneven
from penstock.workers.warmup import warm_up

pytestmark = pytest.mark.extension("images")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LoadedModel]]:
    folder = tmp_path_factory.mktemp("images")
    write_image_models(folder)
    loaded = {name: loaded_from(folder / name, threads=2) for name in RECIPES}
    yield loaded
    for model in loaded.values():
        model.close()


def loaded_from(model_dir: Path, threads: int = 1) -> LoadedModel:
    return load(load_spec(model_dir, read_config(model_dir), threads))


def images(*shape: int) -> Array:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def planes(model: str, given: Array) -> Array:
    return np.stack([reference(image, RECIPES[model]) for image in given])


def ragged(*given: Array) -> Batch:
    data = np.concatenate([array.reshape(-1) for array in given])
    uneven = Uneven({"IMAGE": tuple(array.shape for array in given)}, {})
    return Batch({"IMAGE": data}, [RequestInfo(len(array)) for array in given], uneven=uneven)


def test_images_of_all_sizes_run_together(models: dict[str, LoadedModel]) -> None:
    given = [images(1, 30, 20, 3), images(3, 7, 9, 3), images(1, 1, 1, 3)]
    answer = whole(models["image_onnx"].execute(ragged(*given)))["PLANES"]
    expected = np.concatenate([planes("image_onnx", array) for array in given])
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_images_of_one_size(models: dict[str, LoadedModel]) -> None:
    for rows in (2, 5, 1):
        given = images(rows, 31, 43, 3)
        answer = whole(models["image_onnx"].execute(batch_of({"IMAGE": given})))["PLANES"]
        np.testing.assert_allclose(answer, planes("image_onnx", given), atol=1e-5)


def test_a_model_without_batches(models: dict[str, LoadedModel]) -> None:
    given = images(23, 5, 1)
    batch = Batch({"IMAGE": given}, [RequestInfo(1)])
    (answer,) = models["image_python"].execute(batch)
    assert isinstance(answer, dict)
    expected = reference(given, RECIPES["image_python"])
    assert answer["PLANES"].dtype == np.float16
    np.testing.assert_allclose(answer["PLANES"].astype(np.float64), expected, atol=1e-3)


def test_the_model_s_own_input_stays_in_its_configuration(models: dict[str, LoadedModel]) -> None:
    (tensor,) = models["image_onnx"].config["input"]
    assert tensor == {"name": "IMAGE", "data_type": "TYPE_FP32", "dims": [3, 12, 10]}


def test_warm_ups_are_images(tmp_path: Path) -> None:
    sample = """
    model_warmup [ { name: "s" batch_size: 2
      inputs { key: "IMAGE" value { data_type: TYPE_%s dims: [ 40, 50, 3 ] random_data: true } } } ]
    """
    keys = f"max_batch_size: 8\n{image_lines(CROPPED)}"
    write_image_onnx(tmp_path / "good", keys + sample % "UINT8")
    warm_up(loaded_from(tmp_path / "good"), tmp_path / "good")
    write_image_onnx(tmp_path / "bad", keys + sample % "FP32")
    with pytest.raises(LoadFailed, match="data_type is TYPE_FP32; expected TYPE_UINT8"):
        warm_up(loaded_from(tmp_path / "bad"), tmp_path / "bad")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"shorter_side": "11"},
            "parameters['image.IMAGE.shorter_side'] is 11; expected 0, or 12 and more, to cut from",
        ),
        (
            {"size": "13, 10"},
            "parameters['image.IMAGE.size'] is [13, 10]; expected [12, 10], as the model's input has",
        ),
    ],
)
def test_what_the_model_s_file_contradicts(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write_image_onnx(tmp_path / "m", image_lines({**CROPPED, **changes}))
    with pytest.raises(LoadFailed) as caught:
        loaded_from(tmp_path / "m")
    assert str(caught.value) == expected


def test_an_input_that_the_model_does_not_have(tmp_path: Path) -> None:
    write_image_onnx(tmp_path / "m", image_lines(CROPPED).replace("IMAGE", "PICTURE"))
    with pytest.raises(LoadFailed, match="names 'PICTURE'; expected an input of the model: IMAGE"):
        loaded_from(tmp_path / "m")
