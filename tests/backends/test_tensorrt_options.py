"""What an engine is built by and for: options, profiles, keys, files. Pure, without TensorRT."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_files import load_spec
from penstock.backends.batch_sizes import preferred_sizes
from penstock.backends.tensorrt_errors import Messages
from penstock.backends.tensorrt_key import engine_key, timing_key
from penstock.backends.tensorrt_options import (
    BuildOptions,
    FreeDims,
    RunOptions,
    build_options,
    for_version,
    free_dims,
    run_options,
)
from penstock.backends.tensorrt_plan import Files, find_files, onnx_filename
from penstock.backends.tensorrt_profiles import (
    Profile,
    Range,
    best,
    profiles,
    with_rows,
)
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

NOTHING = FreeDims({}, {}, {})


def parameters(**values: str) -> ConfigDict:
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, BuildOptions()),
        ({"precision": "fp16"}, BuildOptions(("fp16",))),
        ({"precision": " INT8, fp16 ,fp32"}, BuildOptions(("fp16", "int8"))),
        ({"precision": "typed"}, BuildOptions(typed=True)),
        (
            {"max_workspace_size_bytes": "1024", "builder_optimization_level": "5"},
            BuildOptions(workspace_bytes=1024, level=5),
        ),
    ],
)
def test_build_options(values: dict[str, str], expected: BuildOptions) -> None:
    assert build_options(parameters(**values)) == expected


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"precision": "fp12"}, "'precision' is 'fp12', expected some of fp32, fp16"),
        ({"precision": "typed,fp16"}, "or typed alone"),
        ({"max_workspace_size_bytes": "1 GB"}, "expected a number"),
        ({"builder_optimization_level": "6"}, "is 6, expected 0 to 5"),
    ],
)
def test_wrong_build_options_are_named(values: dict[str, str], error: str) -> None:
    with pytest.raises(LoadFailed, match=error):
        build_options(parameters(**values))


def test_since_tensorrt_11_types_are_those_of_the_file() -> None:
    half = BuildOptions(("fp16",), level=2)
    assert for_version(half, 10) == half
    assert for_version(BuildOptions(level=2), 11) == BuildOptions(typed=True, level=2)
    with pytest.raises(LoadFailed, match="TensorRT 11 takes the types of the ONNX file"):
        for_version(half, 11)


def test_shapes_of_inputs_with_free_dims() -> None:
    given = parameters(
        profile_min_shapes="ids:1,images/0:x:3x32x32",
        profile_opt_shapes=" ids:128 ",
        profile_max_shapes="",
    )
    assert free_dims(given) == FreeDims(
        {"ids": (1,), "images/0:x": (3, 32, 32)}, {"ids": (128,)}, {}
    )


@pytest.mark.parametrize("text", ["ids", "ids:", ":8", "ids:0", "ids:8x", "ids:8;16"])
def test_wrong_shapes_are_named(text: str) -> None:
    with pytest.raises(LoadFailed, match=r"'profile_min_shapes' has .*expected NAME:8x16"):
        free_dims(parameters(profile_min_shapes=text))


def test_run_options() -> None:
    assert run_options({}) == RunOptions()
    config = {
        "optimization": {"cuda": {"graphs": True}},
        "instance_group": [{"profile": ["1", "0"]}, {"profile": ["1"]}, {}],
    }
    assert run_options(config) == RunOptions(True, (0, 1))
    with pytest.raises(LoadFailed, match=r"instance_group\[0\].profile has 'a'"):
        run_options({"instance_group": [{"profile": ["a"]}]})


def batching(most: int, *preferred: int) -> ConfigDict:
    return {
        "max_batch_size": most,
        "dynamic_batching": {"preferred_batch_size": list(preferred)},
    }


def rows(made: tuple[Profile, ...]) -> list[tuple[int, int, int]]:
    sizes = [dict(each.inputs)["A"] for each in made]
    return [(r.smallest[0], r.usual[0], r.largest[0]) for r in sizes]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (batching(8), [(1, 8, 8)]),
        (batching(8, 4), [(1, 4, 4), (5, 8, 8)]),
        (batching(8, 8, 2), [(1, 2, 2), (3, 8, 8)]),
        (batching(4, 16), [(1, 4, 4)]),
        (batching(1, 1), [(1, 1, 1)]),
    ],
)
def test_one_profile_for_each_preferred_size(config: ConfigDict, expected: Any) -> None:
    made = profiles(config, {"A": (-1, 3)}, NOTHING)
    assert rows(made) == expected
    assert dict(made[0].inputs)["A"].largest[1:] == (3,)


@given(most=st.integers(1, 64), preferred=st.lists(st.integers(1, 80), max_size=5))
def test_each_batch_has_one_profile_which_is_the_smallest(most: int, preferred: list[int]) -> None:
    made = dict(enumerate(profiles(batching(most, *preferred), {"A": (-1, 3)}, NOTHING)))
    sizes = [size for size in (*preferred_sizes(batching(most, *preferred)), most)]
    for count in range(1, most + 1):
        number = best(made, {"A": (count, 3)})
        assert number is not None
        assert dict(made[number].inputs)["A"].largest[0] == min(s for s in sizes if s >= count)
    assert best(made, {"A": (most + 1, 3)}) is None
    assert best(made, {"A": (1, 4)}) is None


def test_without_free_dims_there_is_no_profile() -> None:
    assert profiles({"max_batch_size": 0}, {"A": (2, 3)}, NOTHING) == ()


def test_free_dims_are_filled_in() -> None:
    free = FreeDims({"A": (1, 3)}, {"A": (8, 3)}, {"A": (64, 3)})
    (made,) = profiles(batching(4), {"A": (-1, -1, 3), "B": (-1,)}, free)
    assert dict(made.inputs) == {
        "A": Range((1, 1, 3), (4, 8, 3), (4, 64, 3)),
        "B": Range((1,), (4,), (4,)),
    }
    (alone,) = profiles({"max_batch_size": 0}, {"A": (-1, 3)}, free)
    assert dict(alone.inputs)["A"] == Range((1, 3), (8, 3), (64, 3))


@pytest.mark.parametrize(
    ("free", "inputs", "error"),
    [
        (NOTHING, {"A": (-1, -1)}, "'A' has dims .*expected parameter 'profile_min_shapes'"),
        (
            FreeDims({"A": (1,)}, {"A": (4,)}, {"A": (2,)}),
            {"A": (-1, -1)},
            "expected min <= opt <= max",
        ),
        (FreeDims({"A": (2,)}, {}, {}), {"A": (-1, 3)}, r"has A:2, but the model has dims \(3,\)"),
        (FreeDims({}, {}, {"C": (2,)}), {"A": (-1, 3)}, "'C', which is no input.*one of A"),
        (NOTHING, {"A": (-1, 3), "B": (2, 3)}, "'B': max_batch_size is 4, but.*any size"),
    ],
)
def test_what_profiles_lack_is_named(
    free: FreeDims, inputs: Mapping[str, tuple[int, ...]], error: str
) -> None:
    with pytest.raises(LoadFailed, match=error.replace(r"\(3,\)", r"\[3\]")):
        profiles(batching(4), inputs, free)


def test_a_plan_bounds_the_batch() -> None:
    engine = {0: Profile((("A", Range((1, 3), (2, 3), (16, 3))),))}
    assert with_rows({"max_batch_size": 64}, {}, engine) == {"max_batch_size": 16}
    assert with_rows({"max_batch_size": 8}, {"max_batch_size": 8}, engine)["max_batch_size"] == 8
    assert with_rows({"max_batch_size": 0}, {}, engine)["max_batch_size"] == 0
    with pytest.raises(LoadFailed, match="is 32, but the engine takes 16 rows at most"):
        with_rows({"max_batch_size": 32}, {"max_batch_size": 32}, engine)


def test_each_part_of_the_key_counts() -> None:
    profile = Profile((("A", Range((1,), (2,), (3,))),))
    keys = {
        engine_key("sha256:a", "10.3.0", "9.0", BuildOptions(), ()),
        engine_key("sha256:b", "10.3.0", "9.0", BuildOptions(), ()),
        engine_key("sha256:a", "10.4.0", "9.0", BuildOptions(), ()),
        engine_key("sha256:a", "10.3.0", "8.9", BuildOptions(), ()),
        engine_key("sha256:a", "10.3.0", "9.0", BuildOptions(("fp16",)), ()),
        engine_key("sha256:a", "10.3.0", "9.0", BuildOptions(), (profile,)),
    }
    assert len(keys) == 6
    same = {engine_key("sha256:a", "10.3.0", "9.0", BuildOptions(), (profile,)) for _ in range(2)}
    assert len(same) == 1
    assert timing_key("10.3.0", "9.0") != timing_key("10.3.0", "8.9")


@pytest.mark.parametrize(
    ("there", "named", "expected"),
    [
        (["model.plan"], "", ("model.plan", None)),
        (["model.plan", "model.onnx"], "", ("model.plan", "model.onnx")),
        (["model.onnx"], "", (None, "model.onnx")),
        (["model.onnx/model.onnx"], "", (None, "model.onnx/model.onnx")),
        (["big.plan", "model.onnx"], "big.plan", ("big.plan", "model.onnx")),
        (["big.onnx", "model.plan"], "big.onnx", (None, "big.onnx")),
    ],
)
def test_which_file_runs(
    there: list[str], named: str, expected: tuple[str | None, str | None], model_dir: Path
) -> None:
    version = model_dir / "1"
    for name in there:
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_bytes(b"x")
    spec = load_spec(model_dir, {"default_model_filename": named})
    plan, onnx = (None if name is None else version / name for name in expected)
    files = find_files(spec)
    assert files == Files(plan, onnx)
    if files.onnx is not None:
        assert onnx_filename(spec, files.onnx) == expected[1]


@pytest.mark.parametrize(
    ("named", "error"),
    [("", "model.plan or model.onnx"), ("a.plan", "expected .*/a.plan"), ("a.onnx", "/a.onnx")],
)
def test_a_file_that_is_missing_is_named(named: str, error: str, model_dir: Path) -> None:
    if named:
        (model_dir / "1" / "model.onnx").write_bytes(b"x")
    with pytest.raises(LoadFailed, match=error):
        find_files(load_spec(model_dir, {"default_model_filename": named}))


def test_what_tensorrt_logs_is_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    messages = Messages()
    messages.take(logging.ERROR, "Version tag\ndoes not match")
    messages.take(logging.INFO, "a detail")
    assert messages.reason("nothing") == "Version tag does not match"
    assert messages.reason("nothing") == "nothing"
    assert [record.levelname for record in caplog.records if record.name.endswith("tensorrt")] == [
        "WARNING"
    ]
