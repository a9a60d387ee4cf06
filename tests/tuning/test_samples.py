"""What models are asked while they are tuned, and which answers agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidRequest
from penstock.tuning.samples import difference, sample_inputs
from penstock.types import NUMPY_DTYPES


def config(*dims: int, **more: Any) -> dict[str, Any]:
    tensor = {"name": "X", "data_type": "TYPE_FP32", "dims": list(dims)}
    return {"name": "tiny", "max_batch_size": 8, "input": [tensor], "parameters": {}, **more}


def test_random_rows_of_the_configured_shape() -> None:
    row = sample_inputs(config(2, 3), Path(), {})
    assert row["X"].shape == (2, 3)
    assert row["X"].dtype == np.float32
    assert len(np.unique(row["X"])) == 6


def test_free_dims_have_to_be_said() -> None:
    with pytest.raises(InvalidRequest, match=r"'X' has dims \[-1, 3\].*--shape X:16,3, or give"):
        sample_inputs(config(-1, 3), Path(), {})
    assert sample_inputs(config(-1, 3), Path(), {"X": (5, 3)})["X"].shape == (5, 3)
    with pytest.raises(InvalidRequest, match=r"--shape X:5,4 does not fit dims \[-1, 3\]"):
        sample_inputs(config(-1, 3), Path(), {"X": (5, 4)})
    with pytest.raises(InvalidRequest, match="names 'Y', which is no input: expected one of X"):
        sample_inputs(config(3), Path(), {"Y": (3,)})


def test_warm_up_samples_are_asked(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    array = np.arange(4, dtype=np.float32)
    (tmp_path / "warmup" / "x.bin").write_bytes(array.tobytes())
    given = {"data_type": "TYPE_FP32", "dims": [4], "input_data_file": "x.bin"}
    warmup = [{"name": "one", "batch_size": 1, "inputs": {"X": given}}]
    row = sample_inputs(config(-1, model_warmup=warmup), tmp_path, {})
    assert row["X"].tolist() == array.tolist()


def test_optional_inputs_are_left_out() -> None:
    both = config(3)
    both["input"].append({"name": "Z", "data_type": "TYPE_FP32", "dims": [-1], "optional": True})
    assert sample_inputs(both, Path(), {}).keys() == {"X"}
    assert sample_inputs(both, Path(), {"Z": (2,)})["Z"].shape == (2,)


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "FP64"])
def test_floats_agree_within_a_tolerance(datatype: str) -> None:
    array = np.array([1.0, -1000.0, 0.001]).astype(NUMPY_DTYPES[datatype])
    assert difference({"Y": array}, {"Y": array.copy()}) == ""
    off = array.copy()
    off[0] += NUMPY_DTYPES[datatype].type(8)
    assert "output 'Y' differs by 0.0" in difference({"Y": array}, {"Y": off})
    nan = array.copy()
    nan[0] = np.nan
    assert difference({"Y": array}, {"Y": nan})
    assert difference({"Y": nan}, {"Y": nan.copy()}) == ""


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "FP64"])
def test_infinities_stand_at_the_same_places(datatype: str) -> None:
    array = np.array([np.inf, -np.inf, np.nan, 1000]).astype(NUMPY_DTYPES[datatype])
    assert difference({"Y": array}, {"Y": array.copy()}) == ""
    near = array.copy()
    near[3] = np.nextafter(1000, 2000) if datatype in ("FP32", "FP64") else 1000
    assert difference({"Y": array}, {"Y": near}) == ""
    far = array.copy()
    far[3] = 2000
    assert difference({"Y": array}, {"Y": far}) == (
        "output 'Y' differs by 1 of its largest element"
    )
    said = "output 'Y' differs in its elements that are NaN or infinite"
    for index, other in ((0, -np.inf), (0, 1000), (2, np.inf), (3, np.inf)):
        turned = array.copy()
        turned[index] = other
        assert difference({"Y": array}, {"Y": turned}) == said


def test_the_largest_doubles_are_compared() -> None:
    array = np.array([1.7e308, 1.0])
    assert difference({"Y": array}, {"Y": array.copy()}) == ""
    assert difference({"Y": array}, {"Y": -array}) == (
        "output 'Y' differs by 2 of its largest element"
    )


def test_all_else_is_the_same() -> None:
    small = np.array([1.0, 2.0], np.float32)
    assert difference({"Y": small}, {"Y": small * np.float32(1 + 1e-4)}) == ""
    numbers = np.array([1, 2])
    assert difference({"Y": numbers}, {"Y": numbers + 1}) == "output 'Y' differs"
    texts = np.array([b"a"], np.object_)
    assert difference({"Y": texts}, {"Y": texts.copy()}) == ""
    assert "another shape" in difference({"Y": small}, {"Y": small[:1]})
    assert "another shape" in difference({"Y": small}, {})
    empty = np.zeros((0, 3), np.float32)
    assert difference({"Y": empty}, {"Y": empty}) == ""
