"""Single values of configuration files change, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.model_config import ConfigDict
from penstock.repository.config_file import read_config
from penstock.tuning.config_edit import edit_pbtxt, edit_yaml

PBTXT = """\
# the model of the shop
name: "tiny"  # as its folder
backend: "onnxruntime"
max_batch_size: 64
input [ { name: "A" data_type: TYPE_FP32 dims: [ 4 ] } ]
output { name: "B" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group [
  {
    count: 1  # one is enough
    kind: KIND_CPU
  }
]
dynamic_batching {
  # who waits
  priority_levels: 2
  default_priority_level: 1
}
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "other" value { string_value: "a { b" } }
"""
YAML = """\
# the model of the shop
name: tiny # as its folder
backend: onnxruntime
max_batch_size: 64
input:
  - name: A
    data_type: TYPE_FP32
    dims: [4]
output:
  - {name: B, data_type: TYPE_FP32, dims: [4]}
instance_group:
  - count: 1 # one is enough
    kind: KIND_CPU
# who waits
dynamic_batching:
  priority_levels: 2
  default_priority_level: 1
parameters:
  intra_op_thread_count: {string_value: "2"}
  other: {string_value: "a { b"}
"""


def read(folder: Path, text: str, filename: str) -> ConfigDict:
    model = folder / "tiny"
    model.mkdir(exist_ok=True)
    (model / filename).write_text(text)
    config = read_config(model)
    (model / filename).unlink()
    assert config is not None
    return config


@pytest.fixture(params=["config.pbtxt", "config.yaml"])
def filename(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def edit(filename: str, changes: dict[tuple[str, ...], Any], text: str | None = None) -> str:
    if filename == "config.pbtxt":
        return edit_pbtxt(PBTXT if text is None else text, changes)
    return edit_yaml(YAML if text is None else text, changes)


def changed_lines(old: str, new: str) -> int:
    return len(set(new.splitlines()) ^ set(old.splitlines()))


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({("backend",): "openvino"}, 2),
        ({("max_batch_size",): 32}, 2),
        ({("dynamic_batching", "max_queue_delay_microseconds"): 500}, 1),
        ({("dynamic_batching", "preferred_batch_size"): [4, 8]}, 1),
        ({("dynamic_batching", "priority_levels"): 3}, 2),
        ({("parameters", "intra_op_thread_count"): "1"}, 2),
        ({("parameters", "intra_op_thread_count"): None}, 1),
        ({("parameters", "INFERENCE_NUM_THREADS"): "1"}, 1),
        ({("platform",): None}, 0),
        ({("version_policy",): None}, 0),
    ],
)
def test_only_that_line_changes(
    changes: dict[tuple[str, ...], Any], lines: int, filename: str, tmp_path: Path
) -> None:
    old = edit(filename, {})
    new = edit(filename, changes)
    assert changed_lines(old, new) == lines, new
    before, after = read(tmp_path, old, filename), read(tmp_path, new, filename)
    ((path, value),) = changes.items()
    expected = dict(before)
    if value is not None or path[0] == "parameters":
        expected[path[0]] = after[path[0]]
    assert after == expected
    found = after.get(path[0]) if len(path) == 1 else after[path[0]].get(path[1])
    if path[0] == "parameters":
        assert (found or {}).get("string_value") == value
        assert after["parameters"]["other"] == {"string_value": "a { b"}
    elif value is not None:
        assert found in (value, str(value)), found
        for key in ("priority_levels", "default_priority_level"):
            if path != ("dynamic_batching", key):
                assert after["dynamic_batching"][key] == before["dynamic_batching"][key]


def test_groups_are_replaced_and_comments_stay(filename: str, tmp_path: Path) -> None:
    new = edit(filename, {("instance_group",): [{"count": 2, "kind": "KIND_CPU"}]})
    (group,) = read(tmp_path, new, filename)["instance_group"]
    assert (group["count"], group["kind"]) == (2, "KIND_CPU")
    assert "# the model of the shop" in new
    assert "# who waits" in new
    assert "one is enough" not in new


@pytest.mark.parametrize(
    "text", ["dynamic_batching { }", "dynamic_batching: {}", "dynamic_batching {\n}\n", "# nothing"]
)
def test_blocks_that_are_empty_or_missing_in_pbtxt(text: str, tmp_path: Path) -> None:
    changes: dict[tuple[str, ...], Any] = {
        ("dynamic_batching", "max_queue_delay_microseconds"): 500,
        ("dynamic_batching", "preferred_batch_size"): [4],
        ("max_batch_size",): 8,
    }
    config = read(tmp_path, edit("config.pbtxt", changes, text), "config.pbtxt")
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 500
    assert config["max_batch_size"] == 8


@pytest.mark.parametrize(
    "text",
    [
        "dynamic_batching: {}\n",
        "dynamic_batching: {priority_levels: 0}",
        "dynamic_batching:\n",
        "# nothing\n",
        "",
        "{dynamic_batching: {}, max_batch_size: 3}",
    ],
)
def test_blocks_that_are_empty_or_missing_in_yaml(text: str, tmp_path: Path) -> None:
    changes: dict[tuple[str, ...], Any] = {
        ("dynamic_batching", "max_queue_delay_microseconds"): 500,
        ("dynamic_batching", "preferred_batch_size"): [4],
        ("max_batch_size",): 8,
    }
    config = read(tmp_path, edit("config.yaml", changes, text), "config.yaml")
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 500
    assert config["max_batch_size"] == 8


def test_a_repeated_entry_becomes_one(tmp_path: Path) -> None:
    text = "instance_group { count: 1 }, instance_group { count: 2 };\nmax_batch_size: 4\n"
    new = edit("config.pbtxt", {("instance_group",): [{"count": 3, "kind": "KIND_CPU"}]}, text)
    assert [g["count"] for g in read(tmp_path, new, "config.pbtxt")["instance_group"]] == [3]
    gone = edit("config.pbtxt", {("instance_group",): None}, text)
    assert read(tmp_path, gone, "config.pbtxt")["max_batch_size"] == 4


@given(
    st.dictionaries(
        st.sampled_from(["name", "backend", "max_batch_size", "platform"]), st.just(0), max_size=4
    ),
    st.sampled_from(["\n", " ", "\n# note: { [\n", ";", ", "]),
    st.integers(0, 512),
)
def test_any_order_and_any_gaps(keys: dict[str, int], gap: str, size: int) -> None:
    values = {"name": '"a{" "b"', "backend": "'x'", "max_batch_size": "3", "platform": '"#"'}
    text = gap.join(f"{key}: {values[key]}" for key in keys)
    new = edit_pbtxt(text, {("max_batch_size",): size})
    kept = [f"{key}: {values[key]}" for key in keys if key != "max_batch_size"]
    assert all(entry in new for entry in kept)
    assert new.count("max_batch_size") == 1
    assert f"max_batch_size: {size}" in new
    assert edit_pbtxt(new, {("max_batch_size",): size}) == new
