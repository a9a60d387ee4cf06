"""config.yaml: the keys of config.pbtxt, with maps as mappings."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.protobuf import message_class
from penstock.repository.config_schema import to_message
from penstock.repository.config_tree import Source
from penstock.repository.config_yaml import parse_yaml


def read(text: str) -> Message:
    source = Source(Path("config.yaml"), text)
    return to_message(parse_yaml(source), source, maps_are_mappings=True).message


def error(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


WHOLE = """\
name: digits
backend: onnxruntime
max_batch_size: 64
input:
  - {name: IMAGE, data_type: TYPE_FP32, dims: [1, 8, -1], format: FORMAT_NCHW, optional: true}
output:
  - name: "CLASS"
    data_type: TYPE_STRING
    dims: [10]
    label_filename: labels.txt
dynamic_batching:
  max_queue_delay_microseconds: 0x64
  preferred_batch_size: [8, 16]
  priority_queue_policy:
    1: {max_queue_size: 5, timeout_action: DELAY}
instance_group:
  - kind: KIND_CPU
    count: 2
parameters:
  threads: 2
  allow: yes
  path: {string_value: "a b"}
  empty: {}
metric_tags: {team: vision}
cc_model_filenames: {}
"""

WHOLE_PBTXT = """
name: "digits" backend: "onnxruntime" max_batch_size: 64
input { name: "IMAGE" data_type: TYPE_FP32 dims: [1, 8, -1] format: FORMAT_NCHW optional: true }
output { name: "CLASS" data_type: TYPE_STRING dims: 10 label_filename: "labels.txt" }
dynamic_batching {
  max_queue_delay_microseconds: 100 preferred_batch_size: [8, 16]
  priority_queue_policy { key: 1 value { max_queue_size: 5 timeout_action: DELAY } }
}
instance_group { kind: KIND_CPU count: 2 }
parameters { key: "threads" value { string_value: "2" } }
parameters { key: "allow" value { string_value: "yes" } }
parameters { key: "path" value { string_value: "a b" } }
parameters { key: "empty" value { } }
metric_tags { key: "team" value: "vision" }
"""


def test_a_whole_configuration() -> None:
    expected = text_format.Parse(WHOLE_PBTXT, message_class("inference.ModelConfig")())
    assert read(WHOLE) == expected


@pytest.mark.parametrize(
    ("text", "pbtxt"),
    [
        ("", ""),
        ("# nothing", ""),
        ("{}", ""),
        ("dynamic_batching:", "dynamic_batching { }"),
        ("dynamic_batching: {}", "dynamic_batching { }"),
        ("version_policy: {all: }", "version_policy { all { } }"),
        ("input:", ""),
        ("parameters:", ""),
        ("input: {name: I, dims: 3}", 'input { name: "I" dims: 3 }'),
        ("a: &d {name: I}".replace("a:", "input:"), 'input { name: "I" }'),
        ("input: [&i {name: I}, *i]", 'input { name: "I" } input { name: "I" }'),
        ("name: 007", 'name: "007"'),
        ("name: true", 'name: "true"'),
        ("name: >\n  folded\n  text\n", 'name: "folded text\\n"'),
        (
            "model_metrics: {metric_control: [{histogram_options: {buckets: [1, 0.5, 1e3]}}]}",
            "model_metrics { metric_control { histogram_options { buckets: [1, 0.5, 1e3] } } }",
        ),
    ],
)
def test_forms(text: str, pbtxt: str) -> None:
    assert read(text) == text_format.Parse(pbtxt, message_class("inference.ModelConfig")())


NUMBER = "expected a whole number from -2147483648 to 2147483647"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: a\nmax_batchsize: 4",
            "2: unknown key 'max_batchsize'; did you mean 'max_batch_size'?",
        ),
        ("name: a\nname: b", "2: name is given twice, first in line 1"),
        ("parameters:\n  a: 1\n  a: 2", "3: a is given twice, first in line 2"),
        ("max_batch_size: '4'", f"1: max_batch_size is '4'; {NUMBER}"),
        ("max_batch_size: many", f"1: max_batch_size is many; {NUMBER}"),
        ("max_batch_size:", f"1: max_batch_size is empty; {NUMBER}"),
        ("max_batch_size: [4]", f"1: max_batch_size is a list; {NUMBER}"),
        ("name:", "1: name is empty; expected text"),
        (
            "input:\n - name: I\n   optional: 'true'",
            "3: input[0].optional is 'true'; expected true or false",
        ),
        (
            "input:\n - name: I\n   data_type: fp32",
            "3: input[0].data_type is fp32; did you mean 'TYPE_FP32'?",
        ),
        ("- a\n- b", "1: found a list; expected a mapping of configuration keys"),
        ("hello", "1: found hello; expected a mapping of configuration keys"),
        ("parameters: [a]", "1: parameters is a; expected a block of keys: names and values"),
        (
            "parameters: {a: [1]}",
            "1: parameters['a'] is a list; expected a block of keys: string_value",
        ),
        ("metric_tags: {a: {b: c}}", "1: metric_tags['a'] is a block of keys; expected text"),
        ("? [a]\n: b", "1: found a list or mapping; expected a key"),
        (
            "name: !!python/name:os.system x",
            "1: tag 'tag:yaml.org,2002:python/name:os.system'; expected a value without tag",
        ),
        ("name: a\n  b: c", "2: not YAML: mapping values are not allowed here"),
        ("name: *b", "1: not YAML: found undefined alias 'b'"),
        (
            'name: "a',
            "1: not YAML: while scanning a quoted scalar, found unexpected end of stream",
        ),
        ("name: a\nb: \x00", "2: character 0 can't stand in YAML"),
        ('name: "\\uD800"', "1: name is '\\ud800'; expected text that UTF-8 can hold"),
        (
            "name: a\n---\nname: b",
            "2: not YAML: expected a single document in the stream, but found another document",
        ),
        ("input:\n" + "- " * 200 + "x", "2: nested more than 32 levels deep"),
        ("input: &a [*a]", "1: nested more than 32 levels deep"),
    ],
)
def test_errors_name_line_and_what_was_expected(text: str, expected: str) -> None:
    assert error(text) == f"config.yaml:{expected}"


def test_aliases_of_aliases_are_counted() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 10):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    assert "more than 20000 keys and values, with what aliases repeat" in error("\n".join(lines))


PIECES = (
    *("name", "input", "dims", "parameters", "dynamic_batching", "version_policy", "a"),
    *(": ", ":\n", "\n", "  ", "- ", "{", "}", "[", "]", ", ", "? ", "| \n", ">", "#", "--- "),
    *("&a ", "*a", "!!int ", "!x ", "<<", '"', "'", "\\", "%YAML 1.1\n", "1", "true", "~", "\t"),
    *("\\U99999999", "\\uD800", "\0", "\ufeff", "\x85", "2001-01-01", "0o7", "1:30", "é"),
)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text)
    except ConfigError as refused:
        assert str(refused).startswith("config.yaml:")
