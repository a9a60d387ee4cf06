"""Configurations as JSON: those that load requests give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from penstock.errors import ConfigError
from penstock.repository.config_file import read_config
from penstock.repository.config_given import given_config
from penstock.repository.config_json import config_to_proto

PBTXT = """
backend: "python"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
output [ { name: "Y" data_type: TYPE_INT64 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
version_policy { latest { } }
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 50 }
parameters { key: "a" value { string_value: "1.5" } }
metric_tags { key: "team" value: "blue" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with a file."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text(PBTXT)
    return tmp_path / "m"


def test_it_means_what_the_file_means(folder: Path) -> None:
    """In Penstock's own JSON, and in both that protobuf writes: there, 64-bit numbers are texts."""
    from_file = read_config(folder)
    assert from_file is not None
    assert given_config(json.dumps(from_file), folder) == from_file
    message = config_to_proto(from_file)
    for names in (False, True):
        as_json = json.dumps(MessageToDict(message, preserving_proto_field_name=names))
        assert given_config(as_json, folder) == from_file


def test_defaults_are_those_of_files(folder: Path) -> None:
    given = given_config('{"version_policy": {"latest": {}}, "instance_group": [{}]}', folder)
    assert given["name"] == "m"
    assert given["version_policy"] == {"latest": {"num_versions": 1}}
    assert given["instance_group"][0]["count"] == 1
    assert given_config("{}", folder)["max_batch_size"] == 0
    assert given_config('{"input": null, "dynamic_batching": null}', folder)["input"] == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"max_batchsize": 4}, "unknown key 'max_batchsize'; did you mean 'max_batch_size'?"),
        ({"input": [{"nme": "X"}]}, "unknown key 'nme' in input[0]"),
        ({"max_batch_size": "many"}, "max_batch_size is many; expected a whole number"),
        ({"max_batch_size": 1.5}, "max_batch_size is 1.5; expected a whole number"),
        ({"max_batch_size": -1}, "max_batch_size is -1"),
        ({"max_batch_size": [1]}, "max_batch_size is a list"),
        ({"backend": 3}, "backend is 3; expected text"),
        ({"backend": True}, "backend is true; expected text"),
        ({"input": [{"name": "X", "data_type": "FP32"}]}, "did you mean 'TYPE_FP32'?"),
        ({"name": "other"}, "name is 'other'; expected 'm'"),
        ({"dynamic_batching": 3}, "dynamic_batching is 3; expected a block of keys"),
        ({"version_policy": {"all": {}, "latest": {}}}, "can't be given beside all"),
        ([], "found a list; expected a JSON object of configuration keys"),
        ("text", "found text; expected a JSON object"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, given: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        given_config(json.dumps(given), folder)
    text = str(raised.value)
    assert text.startswith("Invalid config override: ")
    assert problem in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON: "),
        ("{", "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ('{"parameters": ' + '{"a": ' * 40 + "1" + "}" * 41, "nests deeper than 32 levels"),
        ('{"max_batch_size": 1, "max_batch_size": 2}', "max_batch_size is given twice"),
        ('{"max_batch_size": 1, "maxBatchSize": 2}', "max_batch_size is given twice"),
        ('{"max_batch_size": ' + "9" * 5000 + "}", "Invalid config override: "),
        ('{"max_batch_size": NaN}', "max_batch_size is NaN; expected a whole number"),
        ('{"backend": "\\ud800"}', "expected text that UTF-8 can hold"),
        (" " * (1 << 20) + "{}", "over 1048576 characters"),
    ],
    ids=lambda value: value[:20],
)
def test_texts_that_are_no_configuration(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        given_config(text, folder)
    assert problem in str(raised.value)


def test_label_files_are_those_of_the_folder(folder: Path) -> None:
    output = {"name": "Y", "data_type": "TYPE_FP32", "dims": [3], "label_filename": "labels.txt"}
    with pytest.raises(ConfigError, match=r"output\[0\].label_filename can't be used"):
        given_config(json.dumps({"output": [output]}), folder)
    (folder / "labels.txt").write_text("a\nb\nc\n")
    assert given_config(json.dumps({"output": [output]}), folder)["output"][0]["dims"] == [3]
