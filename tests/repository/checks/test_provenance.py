"""Where values come from: the file's lines, defaults, the model's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.repository.checks.provenance import provenance
from penstock.repository.config_file import read_located, resolve

pytestmark = pytest.mark.extension("check")

CONFIGS = {
    "config.pbtxt": """\
backend: "python"
input [ {
  name: "X"
  dims: [ 3,
    4 ] } ]
instance_group [ { kind: KIND_CPU } ]
parameters { key: "a" value { string_value: "1" } }
model_transaction_policy { decoupled: false }
""",
    "config.yaml": """\
backend: python
input:
  - name: X
    dims: [3,
      4]
instance_group: [{kind: KIND_CPU}]
parameters: {a: "1"}
model_transaction_policy: {decoupled: false}
""",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_each_value_has_its_source(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CONFIGS[name])
    located = read_located(tmp_path)
    assert located is not None
    before = resolve(located, tmp_path)
    after = {
        **before,
        "max_batch_size": 8,
        "input": [{**before["input"][0], "data_type": "TYPE_FP32"}],
        "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [2]}],
    }
    found = {each.key: (each.value, each.source) for each in provenance(before, after, located)}
    files = "the model's files"
    assert found == {
        "name": (tmp_path.name, "default"),
        "backend": ("python", f"{name}:1"),
        "max_batch_size": (8, files),
        "input[0].name": ("X", f"{name}:3"),
        "input[0].data_type": ("TYPE_FP32", files),
        "input[0].dims": ([3, 4], f"{name}:4"),
        "output[0].name": ("Y", files),
        "output[0].data_type": ("TYPE_FP32", files),
        "output[0].dims": ([2], files),
        "instance_group[0].count": (1, "default"),
        "instance_group[0].kind": ("KIND_CPU", f"{name}:6"),
        "parameters['a'].string_value": ("1", f"{name}:7"),
        "model_transaction_policy.decoupled": (False, f"{name}:8"),
    }


def test_without_a_file(tmp_path: Path) -> None:
    values = provenance({"name": "m"}, {"name": "m", "backend": "python"}, None)
    assert [(value.key, value.source) for value in values] == [
        ("name", "default"),
        ("backend", "the model's files"),
    ]
