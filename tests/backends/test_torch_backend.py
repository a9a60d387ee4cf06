"""PyTorch models of each kind on the CPU, made here, and loaded as a worker would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_models as made
from model_files import batch_of, each, load_spec, whole, write_python
from penstock.backends.base import Batch, LoadedModel, RequestInfo
from penstock.backends.registry import load
from penstock.backends.torch_tensors import DTYPES
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict
from penstock.types import NUMPY_DTYPES


def tensor(name: str, data_type: str = "TYPE_FP32", *dims: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims or (4,)), **more}


def config(*inputs: str, outputs: tuple[str, ...] = ("SUM", "SCALED"), **more: Any) -> ConfigDict:
    return {
        "backend": "torch",
        "max_batch_size": 8,
        "input": [tensor(name) for name in inputs or ("A", "B")],
        "output": [tensor(name) for name in outputs],
        **more,
    }


def load_tiny(model_dir: Path, given: ConfigDict | None = None) -> LoadedModel:
    return load(load_spec(model_dir, config() if given is None else given))


def parameters(**values: str) -> dict[str, dict[str, str]]:
    return {key: {"string_value": value} for key, value in values.items()}


def floats(rows: int, value: float = 1) -> dict[str, np.ndarray]:
    return {"A": np.full((rows, 4), value, np.float32), "B": np.ones((rows, 4), np.float32)}


def run(model: LoadedModel, *requests: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(whole(model.execute(batch_of(*requests))))


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept at home, and no variable that a load has set stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_penstock_does_not_import_torch() -> None:
    code = (
        "import sys, penstock.cli, penstock.backends.registry, penstock.backends.torch_backend;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# the batch's rows, whatever the kind


@pytest.mark.parametrize("kind", ["torchscript", "exported", "state_dict"])
def test_batches(kind: str, model_dir: Path) -> None:
    made.WRITERS[kind](model_dir)
    model = load_tiny(model_dir)
    found = run(model, floats(1, 3), floats(2, 5))
    assert found["SUM"].tolist() == [[4] * 4, [6] * 4, [6] * 4]
    assert found["SCALED"].tolist() == [[6] * 4, [10] * 4, [10] * 4]
    only = whole(model.execute(batch_of(floats(1), outputs=[["SCALED"]])))
    assert list(only) == ["SCALED"]
    assert run(model, floats(1))["SUM"].tolist() == [[2] * 4]
    model.close()


@pytest.mark.skipif(not made.has_compiler(), reason="AOTInductor needs a C++ compiler")
@pytest.mark.parametrize("encrypted", [False, True])
def test_nothing_of_a_package_stays_on_the_disk(
    encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of one that was encrypted, and of no other while it is loaded: its worker may be killed."""
    disk = tmp_path / "tmp"
    disk.mkdir()
    monkeypatch.setenv("TMPDIR", str(disk))
    monkeypatch.setattr(tempfile, "tempdir", None)
    staged = tmp_path / "memory" / "1"
    made.write_aoti(staged / "model" / "tiny")
    if encrypted:
        (staged / "staged.json").write_text('{"encrypted": true}')
    unpacked: list[list[str]] = []
    load_package = torch._inductor.aoti_load_package

    def noting(*args: Any, **kwargs: Any) -> Any:
        model = load_package(*args, **kwargs)
        unpacked.extend([file.name for file in place.iterdir()] for place in (disk, staged))
        return model

    monkeypatch.setattr(torch._inductor, "aoti_load_package", noting)
    model = load_tiny(staged / "model" / "tiny")
    where = [any(name.startswith("penstock-torch-") for name in names) for names in unpacked]
    assert where == [not encrypted, encrypted]
    assert not list(disk.glob("penstock-*")) and not list(staged.glob("penstock-*"))
    assert os.environ["TMPDIR"] == str(disk)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(os.environ["XDG_CACHE_HOME"])
    assert run(model, floats(1, 3))["SCALED"].tolist() == [[6] * 4]
    model.close()


@pytest.mark.skipif(not made.has_compiler(), reason="AOTInductor needs a C++ compiler")
def test_an_aotinductor_package(model_dir: Path, tmp_path: Path) -> None:
    """What it was not compiled for is refused, and not read as if it were; one row is padded to two."""
    made.write_aoti(model_dir)
    model = load_tiny(model_dir)
    assert run(model, floats(1, 3))["SCALED"].tolist() == [[6] * 4]
    assert run(model, floats(1, 3), floats(2, 5))["SUM"].tolist() == [[4] * 4, [6] * 4, [6] * 4]
    model.close()
    wrong = [tensor("A", "TYPE_INT32", 5), tensor("B", "TYPE_INT32", 5)]
    model = load_tiny(model_dir, config(input=wrong))
    five = np.ones((2, 5), np.int32)
    with pytest.raises(ModelFailed, match=r"unmatched dtype, expected: 6\(at::kFloat\)"):
        model.execute(batch_of({"A": five, "B": five}))
    model.close()
    with pytest.raises(LoadFailed, match="it returns a dict of SUM, SCALED"):
        load_tiny(model_dir, config(outputs=("TOTAL",)))
    with pytest.raises(LoadFailed, match="the model takes 2 inputs, the configuration has 1"):
        load_tiny(model_dir, config("A"))
    for name in ("autocast", "channels_last"):
        with pytest.raises(LoadFailed, match=f"{name!r} can't change what AOTInductor"):
            load_tiny(model_dir, config(parameters=parameters(**{name: "auto"})))


# what a program of torch.export says of itself


def test_an_exported_program_fills_the_configuration_in(model_dir: Path) -> None:
    program = made.exported(made.SumAndScaled(), rows=torch.export.Dim("rows", max=32))
    made.save_program(program, model_dir)
    model = load_tiny(model_dir, {})
    assert model.config["max_batch_size"] == 32
    assert model.config["dynamic_batching"] == {}
    assert model.config["input"] == [tensor("A"), tensor("B")]
    assert model.config["output"] == [tensor("OUTPUT__0"), tensor("OUTPUT__1")]
    assert run(model, floats(1))["OUTPUT__1"].tolist() == [[2] * 4]
    with pytest.raises(LoadFailed, match="max_batch_size is 64, but the model was exported for 32"):
        load_tiny(model_dir, {"max_batch_size": 64})
    with pytest.raises(LoadFailed, match="the model has TYPE_FP32, the configuration TYPE_INT8"):
        load_tiny(
            model_dir, {"max_batch_size": 8, "input": [tensor("A", "TYPE_INT8"), tensor("B")]}
        )


def test_a_program_exported_for_more_rows_than_come(model_dir: Path) -> None:
    program = made.exported(made.AsDict(), rows=torch.export.Dim("rows", min=3, max=16))
    made.save_program(program, model_dir)
    found = run(load_tiny(model_dir, {}), floats(1, 3))
    assert found["SUM"].tolist() == [[4] * 4]


class Nested(torch.nn.Module):
    def forward(
        self, pair: dict[str, torch.Tensor], factor: int, *, shift: torch.Tensor
    ) -> torch.Tensor:
        return (pair["P"] - pair["Q"]) * factor + shift


def test_trees_of_inputs_keywords_and_numbers(model_dir: Path) -> None:
    """A dict's tensors have its keys' names; a number stays what it was in the example."""
    # torch.export takes one tensor in two places for one input
    p, q, shift = torch.ones(3, 4), torch.ones(3, 4), torch.ones(3, 4)
    with made.legacy():
        program = torch.export.export(Nested(), ({"P": p, "Q": q}, 3), {"shift": shift})
    made.save_program(program, model_dir)
    model = load_tiny(model_dir, {})
    assert model.config["max_batch_size"] == 0
    assert [t["name"] for t in model.config["input"]] == ["P", "Q", "shift"]
    five, two, half = (np.full((3, 4), value, np.float32) for value in (5, 2, 0.5))
    found = run(model, {"P": five, "Q": two, "shift": half})
    assert found["OUTPUT__0"].tolist() == [[9.5] * 4] * 3


# names


def test_inputs_and_outputs_by_number(model_dir: Path) -> None:
    made.save_script(made.torch_script(made.SumAndScaled()), model_dir)
    given = config("INPUT__1", "INPUT__0", outputs=("OUTPUT__1",))
    found = run(
        load_tiny(model_dir, given), {"INPUT__0": floats(1, 7)["A"], "INPUT__1": floats(1)["B"]}
    )
    assert found["OUTPUT__1"].tolist() == [[14] * 4]


class DictOfTensors(torch.nn.Module):
    def forward(self, x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"SUM": x["A"] + x["B"], "SCALED": x["A"] * 2}


def test_a_dict_of_inputs(model_dir: Path) -> None:
    made.save_script(made.torch_script(DictOfTensors()), model_dir)
    assert run(load_tiny(model_dir), floats(1))["SUM"].tolist() == [[2] * 4]
    with pytest.raises(LoadFailed, match="takes a dict of tensors: expected input in the config"):
        load_tiny(model_dir, {"backend": "torch"})


class WithDefault(torch.nn.Module):
    def forward(
        self, A: torch.Tensor, scale: float = 2.0, B: torch.Tensor | None = None
    ) -> torch.Tensor:
        scaled = A * scale
        return scaled if B is None else scaled + B


def test_optional_inputs(model_dir: Path) -> None:
    made.save_script(made.torch_script(WithDefault()), model_dir)
    given = config(
        input=[tensor("A"), tensor("B", optional=True)], outputs=("Y",), max_batch_size=0
    )
    model = load_tiny(model_dir, given)
    assert run(model, {"A": np.ones(4, np.float32)})["Y"].tolist() == [2] * 4
    assert run(model, {n: np.ones(4, np.float32) for n in "AB"})["Y"].tolist() == [3] * 4


class NeedsNumber(torch.nn.Module):
    def forward(self, A: torch.Tensor, scale: float) -> torch.Tensor:
        return A * scale


class GivesText(torch.nn.Module):
    def forward(self, A: torch.Tensor) -> str:
        return "text"


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (NeedsNumber(), "forward needs 'scale', which is float, expected Tensor"),
        (GivesText(), "forward returns str, expected tensors"),
    ],
)
def test_signatures_without_tensors(module: torch.nn.Module, told: str, model_dir: Path) -> None:
    made.save_script(made.torch_script(module), model_dir)
    with pytest.raises(LoadFailed, match=told):
        load_tiny(model_dir, config("A", outputs=("Y",)))


# datatypes


class Same(torch.nn.Module):
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return X.clone()


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same") / "tiny"
    made.save_script(made.torch_script(Same()), folder)
    return folder


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype(datatype: str, same: Path) -> None:
    data_type = f"TYPE_{datatype}"
    given = config(input=[tensor("X", data_type)], output=[tensor("Y", data_type)])
    array = np.array([[0, 1, 2, 3], [1, 0, 5, 100]]).astype(NUMPY_DTYPES[datatype])
    found = run(load_tiny(same, given), {"X": array[:1]}, {"X": array[1:]})["Y"]
    assert found.dtype == NUMPY_DTYPES[datatype]
    np.testing.assert_array_equal(found, array)


def test_texts_are_refused(same: Path) -> None:
    given = config(input=[tensor("X", "TYPE_STRING")], output=[tensor("Y")])
    with pytest.raises(LoadFailed, match="'X' is TYPE_STRING, which no tensor of PyTorch can hold"):
        load_tiny(same, given)


def test_another_datatype_than_the_configuration_says(same: Path) -> None:
    given = config(input=[tensor("X")], output=[tensor("Y", "TYPE_FP64")])
    with pytest.raises(ModelFailed, match=r"'Y' is torch\.float32, expected torch\.float64"):
        load_tiny(same, given).execute(batch_of({"X": np.ones((1, 4), np.float32)}))


def test_inputs_are_not_copied(model_dir: Path) -> None:
    """The output of a model that gives its input back lies where that lies."""
    write_class(model_dir, "return X")
    array = np.ones((2, 4), np.float32)
    batch = Batch({"X": array}, (RequestInfo(2),))
    found = whole(load_tiny(model_dir, config("X", outputs=("Y",))).execute(batch))["Y"]
    assert np.shares_memory(found, array)


# errors in a batch


def write_class(model_dir: Path, body: str, state: dict[str, torch.Tensor] | None = None) -> None:
    write_python(
        model_dir,
        f"""
        import torch

        class Model(torch.nn.Module):
            def forward(self, X):
                {body}
        """,
    )
    torch.save(state or {}, model_dir / "1" / "weights.pt")


def test_one_bad_request_of_a_batch(model_dir: Path) -> None:
    write_class(model_dir, "assert not (X < 0).any(), 'below 0'; return X * 2")
    model = load_tiny(model_dir, config("X", outputs=("Y",)))
    good, bad = np.ones((2, 4), np.float32), np.full((1, 4), -1, np.float32)
    first, second = each(model.execute(batch_of({"X": good}, {"X": bad})))
    assert first["Y"].tolist() == [[2] * 4] * 2
    assert str(second) == "PyTorch: AssertionError: below 0"


def test_what_torchscript_says_last_is_the_reason(model_dir: Path) -> None:
    class Picky(torch.nn.Module):
        def multiplied(self, X: torch.Tensor) -> torch.Tensor:
            return torch.mm(X, torch.zeros(3, 3))

        def forward(self, X: torch.Tensor) -> torch.Tensor:
            if bool((X < 0).any()):
                raise ValueError("below 0:\n not allowed")
            return self.multiplied(X)

    made.save_script(made.torch_script(Picky()), model_dir)
    model = load_tiny(model_dir, config("X", outputs=("Y",)))
    with pytest.raises(ModelFailed) as raised:
        model.execute(batch_of({"X": np.full((1, 4), -1, np.float32)}))
    assert str(raised.value) == "PyTorch: ValueError: below 0: not allowed"
    with pytest.raises(ModelFailed) as raised:
        model.execute(batch_of({"X": np.ones((1, 4), np.float32)}))
    text = "PyTorch: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x4 and 3x3)"
    assert str(raised.value) == text


def test_torchscript_whose_module_is_not_called_self(model_dir: Path) -> None:
    class Doubled(torch.nn.Module):
        def forward(module, X: torch.Tensor) -> torch.Tensor:
            return X * 2

    made.save_script(made.torch_script(Doubled()), model_dir)
    model = load_tiny(model_dir, config("X", outputs=("Y",)))
    found = whole(model.execute(batch_of({"X": np.ones((1, 4), np.float32)})))
    assert found["Y"].tolist() == [[2] * 4]


def test_an_exception_whose_constructor_takes_more_than_a_text(model_dir: Path) -> None:
    write_class(model_dir, "b'\\xff'.decode()")
    model = load_tiny(model_dir, config("X", outputs=("Y",)))
    with pytest.raises(ModelFailed, match=r"^PyTorch: UnicodeDecodeError: 'utf-8' codec can't"):
        model.execute(batch_of({"X": np.ones((1, 4), np.float32)}))


def test_one_that_writes_into_its_inputs_is_not_run_again(model_dir: Path) -> None:
    write_class(model_dir, "X.mul_(2); assert not (X < 0).any(), 'below 0'; return X")
    model = load_tiny(model_dir, config("X", outputs=("Y",)))
    arrays = np.array([[1] * 4, [-1] * 4], np.float32)
    batch = Batch({"X": arrays}, (RequestInfo(1), RequestInfo(1)))
    answers = each(model.execute(batch))
    assert ["written into its inputs" in str(answer) for answer in answers] == [True, True]
    assert arrays.tolist() == [[2] * 4, [-2] * 4]
    alone = Batch({"X": np.ones((1, 4), np.float32)}, (RequestInfo(1),))
    assert whole(model.execute(alone))["Y"].tolist() == [[2] * 4]


def test_rows_are_counted(model_dir: Path) -> None:
    write_class(model_dir, "return X.sum(0)")
    with pytest.raises(ModelFailed, match=r"'Y' has shape \[4\], expected first dimension 2"):
        load_tiny(model_dir, config("X", outputs=("Y",))).execute(
            batch_of({"X": np.ones((2, 4), np.float32)})
        )


def test_what_is_no_tensor(model_dir: Path) -> None:
    write_class(model_dir, "return (X, 'text')")
    with pytest.raises(ModelFailed, match="output 'Z' is str, expected a tensor"):
        load_tiny(model_dir, config("X", outputs=("Y", "Z"))).execute(
            batch_of({"X": np.ones((1, 4), np.float32)})
        )


def test_ragged_batches_and_batch_inputs(model_dir: Path) -> None:
    write_python(
        model_dir,
        """
        import torch

        class Model(torch.nn.Module):
            def forward(self, X, ends):
                sums = torch.cumsum(X, 0)[ends.long() - 1]
                return torch.diff(sums, prepend=torch.zeros(1))[:, None]
        """,
    )
    torch.save({}, model_dir / "1" / "weights.pt")
    made_input = {
        "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "target_name": ["ends"],
        "data_type": "TYPE_INT32",
        "source_input": ["X"],
    }
    given = config(
        input=[tensor("X", "TYPE_FP32", -1, allow_ragged_batch=True)],
        output=[tensor("Y", "TYPE_FP32", 1)],
        batch_input=[made_input],
    )
    model = load_tiny(model_dir, given)
    from penstock.types import Uneven

    batch = Batch(
        {"X": np.arange(1, 6, dtype=np.float32)},
        (RequestInfo(1), RequestInfo(1)),
        uneven=Uneven({"X": ((1, 2), (1, 3))}, {}),
    )
    assert whole(model.execute(batch))["Y"].tolist() == [[3], [12]]


# options


def test_threads_mode_and_executor(model_dir: Path) -> None:
    write_class(
        model_dir,
        "return X + torch.is_inference_mode_enabled() * 10 + torch.get_num_threads()",
    )
    given = config("X", outputs=("Y",))
    one = {"X": np.zeros((1, 4), np.float32)}
    spec = replace(load_spec(model_dir, given), threads=2)
    assert run(load(spec), one)["Y"][0, 0] == 12
    given["parameters"] = parameters(INFERENCE_MODE="false", INTRA_OP_THREAD_COUNT="1")
    assert run(load(replace(spec, config=given | {"name": "tiny"})), one)["Y"][0, 0] == 1


def test_autocast_computes_in_bf16_and_answers_as_declared(model_dir: Path) -> None:
    write_class(model_dir, "return X @ torch.full((4, 4), 1 / 3)")
    one = {"X": np.ones((1, 4), np.float32)}
    given = config("X", outputs=("Y",))
    plain = run(load_tiny(model_dir, given), one)["Y"]
    cast = run(load_tiny(model_dir, given | {"parameters": parameters(autocast="bf16")}), one)["Y"]
    assert cast.dtype == np.float32
    assert 0 < np.abs(cast - plain).max() < 0.02


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Conv2d(3, 4, 3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(X)
        return found


@pytest.mark.parametrize(
    "values", [{"channels_last": "1"}, {"channels_last": "auto", "autocast": "auto"}]
)
def test_channels_last(
    values: dict[str, str], model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = Convolution()
    made.save_script(made.torch_script(module), model_dir)
    given = config(
        input=[tensor("X", "TYPE_FP32", 3, 8, 8)], output=[tensor("Y", "TYPE_FP32", 4, 6, 6)]
    )
    given["parameters"] = parameters(**values)
    with caplog.at_level("INFO"):
        model = load_tiny(model_dir, given)
    assert ("auto: channels_last takes" in caplog.text) is ("auto" in values.values())
    array = np.random.default_rng(1).random((2, 3, 8, 8), np.float32)
    expected = module(torch.from_numpy(array)).detach().numpy()
    np.testing.assert_allclose(run(model, {"X": array})["Y"], expected, atol=0.02)


class Flat(Convolution):
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(X).view(X.shape[0], -1)
        return found


def test_auto_goes_without_what_a_model_cannot_do(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`view` takes no tensor that lies as NHWC."""
    module = Flat()
    made.save_script(made.torch_script(module), model_dir)
    given = config(
        input=[tensor("X", "TYPE_FP32", 3, 8, 8)], output=[tensor("Y", "TYPE_FP32", 144)]
    )
    with caplog.at_level("INFO"):
        model = load_tiny(model_dir, given | {"parameters": parameters(channels_last="auto")})
    assert "auto: channels_last is not for this model: RuntimeError" in caplog.text
    array = np.random.default_rng(1).random((2, 3, 8, 8), np.float32)
    expected = module(torch.from_numpy(array)).detach().numpy()
    np.testing.assert_allclose(run(model, {"X": array})["Y"], expected, atol=1e-5)


def test_nothing_is_measured_where_sizes_are_free(
    same: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = config(input=[tensor("X", "TYPE_FP32", -1)], output=[tensor("Y", "TYPE_FP32", -1)])
    with caplog.at_level("INFO"):
        load_tiny(same, given | {"parameters": parameters(autocast="auto")})
    assert "inputs of any size can't be tried" in caplog.text


def test_a_gpu_that_torch_cannot_use(same: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    spec = replace(load_spec(same, config("X", outputs=("Y",))), device="cuda:0")
    with pytest.raises(LoadFailed, match=r"to run on cuda:0, but torch .* (is built|finds no GPU)"):
        load(spec)


def test_decoupled_is_refused(same: Path) -> None:
    given = config("X", outputs=("Y",), model_transaction_policy={"decoupled": True})
    with pytest.raises(LoadFailed, match="a PyTorch model gives each request one response"):
        load_tiny(same, given)
