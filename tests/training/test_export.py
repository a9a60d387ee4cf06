"""An ONNX file that does what the trained model does, and is found out where it doesn't."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from penstock_training.errors import RegistrationError
from penstock_training.export import (
    add_metadata,
    check_signature,
    compare,
    export_onnx,
    run,
    session,
)
from penstock_training.recipe import Batch
from trained import PlaneRecipe, config_of, good_model, points


class Several(PlaneRecipe):
    """Two inputs of two types, three outputs, one of them whole numbers."""

    inputs: ClassVar[tuple[str, ...]] = ("POINT", "AGE")
    outputs: ClassVar[tuple[str, ...]] = ("PROBABILITY", "BEST", "AGE_NEXT")

    def serving_model(self, model: nn.Module) -> nn.Module:
        return Served(model)

    def example_input(self) -> Batch:
        return {"POINT": torch.zeros(1, 2), "AGE": torch.zeros(1, dtype=torch.int64)}


class Served(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, point: Tensor, age: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = self.inner(point).softmax(dim=1)
        return shares, shares.argmax(dim=1), age + 1


class WithAges:
    def __init__(self, rows: int) -> None:
        self._points = points(rows, 4)

    def __len__(self) -> int:
        return len(self._points)

    def fetch(self, rows: Tensor) -> Batch:
        return {**self._points.fetch(rows), "AGE": rows}


def recipe_of(kind: type[PlaneRecipe], folder: Path) -> Any:
    return kind(config_of(folder, ""), None)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Several, nn.Module, Path]:
    folder = tmp_path_factory.mktemp("several")
    recipe = recipe_of(Several, folder)
    serving = recipe.serving_model(good_model()).eval()
    export_onnx(recipe, serving, 20, folder / "model.onnx")
    return recipe, serving, folder / "model.onnx"


def test_it_does_the_same_for_batches_of_any_size(
    several: tuple[Several, nn.Module, Path],
) -> None:
    recipe, serving, path = several
    check_signature(path, recipe)
    found = compare(recipe, serving, path, WithAges(300))
    assert found.samples == 304, "a batch of one and one of three are tried too"
    assert set(found.by_output) == {"PROBABILITY", "BEST", "AGE_NEXT"}
    assert found.largest == max(found.by_output.values()) < 1e-6
    assert found.by_output["BEST"] == 0
    one = run(session(path), {"POINT": np.zeros((1, 2), np.float32), "AGE": np.array([5])})
    assert one["AGE_NEXT"].tolist() == [6]


def test_it_says_where_it_comes_from_and_not_where_it_was_made(
    several: tuple[Several, nn.Module, Path], tmp_path: Path
) -> None:
    _, _, path = several
    copied = tmp_path / "model.onnx"
    copied.write_bytes(path.read_bytes())
    add_metadata(copied, {"penstock.run.id": "abc"})
    proto = onnx.load(copied)
    assert {each.key: each.value for each in proto.metadata_props} == {"penstock.run.id": "abc"}
    assert {each.domain: each.version for each in proto.opset_import}[""] == 20
    assert b".py" not in copied.read_bytes(), "no source line of the machine that trained it"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_another_model_is_found_out(several: tuple[Several, nn.Module, Path]) -> None:
    recipe, _, path = several
    other = good_model()
    assert isinstance(other, nn.Linear)
    with torch.no_grad():
        other.bias.add_(torch.tensor([0.1, 0.0, 0.0]))
    found = compare(recipe, recipe.serving_model(other).eval(), path, WithAges(300))
    assert 0.01 < found.by_output["PROBABILITY"] < 0.1
    assert found.by_output["AGE_NEXT"] == 0


def test_what_is_no_number_in_one_of_them_is_an_infinite_difference(
    several: tuple[Several, nn.Module, Path],
) -> None:
    recipe, _, path = several
    broken = good_model()
    assert isinstance(broken, nn.Linear)
    with torch.no_grad():
        broken.bias.fill_(float("nan"))
    found = compare(recipe, recipe.serving_model(broken).eval(), path, WithAges(10))
    assert found.largest == float("inf")


class FixedBatch(PlaneRecipe):
    """Its model is made for two samples."""

    def serving_model(self, model: nn.Module) -> nn.Module:
        return OfTwo(model)


class OfTwo(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, point: Tensor) -> Tensor:
        found: Tensor = self.inner(point.reshape(2, 2)).softmax(dim=1)
        return found


def test_a_model_of_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(FixedBatch, tmp_path)
    serving, path = recipe.serving_model(good_model()), tmp_path / "model.onnx"
    export_onnx(recipe, serving, 20, path)
    with pytest.raises(
        RegistrationError, match="'POINT' is not the batch: the model computes with"
    ):
        check_signature(path, recipe)
    with pytest.raises(
        RegistrationError, match=r"serving_model fails on test rows: shape.*\[2, 2\]"
    ):
        compare(recipe, serving, path, points(10, 1))


class Loud(PlaneRecipe):
    """Its model has no ONNX."""

    def serving_model(self, model: nn.Module) -> nn.Module:
        return Listed(model)


class Listed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, point: Tensor) -> Tensor:
        rows = [self.inner(row) for row in point.tolist()]
        return torch.stack(rows)


def test_a_model_that_can_not_be_exported_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(Loud, tmp_path)
    with pytest.raises(RegistrationError, match="torch can't export the model to ONNX"):
        export_onnx(recipe, recipe.serving_model(good_model()), 20, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_promises_other_tensors_is_refused(
    several: tuple[Several, nn.Module, Path], tmp_path: Path
) -> None:
    _, _, path = several
    recipe = recipe_of(PlaneRecipe, tmp_path)
    with pytest.raises(RegistrationError, match=r"has the inputs \('POINT', 'AGE'\); expected"):
        check_signature(path, recipe)
    promising = recipe_of(Several, tmp_path)
    one = nn.Sequential(good_model())

    class Alone(nn.Module):
        def forward(self, point: Tensor, age: Tensor) -> Mapping[str, Tensor] | Tensor:
            result: Tensor = one(point)
            return result

    with pytest.raises(RegistrationError, match="gives 1 outputs; expected PROBABILITY, BEST"):
        compare(promising, Alone(), path, WithAges(3))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(RegistrationError, match="ONNX Runtime can't load the model"):
        session(tmp_path / "model.onnx")
