"""Reading a model's folder: which file, its bytes, and the lines that errors name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.model_config import parse
from penstock.repository.config_file import MAX_BYTES, read_config

TENSORS = 'input { name: "I" data_type: TYPE_FP32 dims: 1 } output { name: "O" }'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    return folder


def error(model: Path, text: str | bytes, name: str = "config.pbtxt") -> str:
    """The error's text, without the folder."""
    (model / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        read_config(model)
    return str(caught.value).replace(f"{model}/", "")


def test_no_file_is_no_configuration(model: Path) -> None:
    assert read_config(model) is None


REAL = """\
name: "digits"
backend: "python"
max_batch_size: 64
input [{name: "INPUT0" data_type: TYPE_FP32 dims: [3,224,224]}]
output [{name: "OUTPUT0" data_type: TYPE_STRING dims: [16]}]
dynamic_batching { }
instance_group [{kind: KIND_CPU count: 1}]

# what Triton's own examples have
parameters: {
  key: "FORCE_CPU_ONLY_INPUT_TENSORS"
  value: { string_value: "no" }
}
optimization { execution_accelerators {
  cpu_execution_accelerator : [ { name : "openvino" } ]
}}
model_warmup { name: "w" batch_size: 1 inputs { key: "INPUT0" value: { zero_data: true } } }
version_policy: { latest { num_versions: 2 }}
"""


def test_a_real_configuration(model: Path) -> None:
    (model / "config.pbtxt").write_text(REAL)
    config = read_config(model)
    assert config is not None
    typed = parse(config)
    assert (typed.name, typed.backend, typed.max_batch_size) == ("digits", "python", 64)
    assert typed.input[0].dims == (3, 224, 224)
    assert typed.output[0].datatype == "BYTES"
    assert typed.dynamic_batching is not None
    group = config["instance_group"][0]
    assert (group["kind"], group["count"]) == ("KIND_CPU", 1)
    assert config["parameters"]["FORCE_CPU_ONLY_INPUT_TENSORS"] == {"string_value": "no"}
    assert config["version_policy"] == {"latest": {"num_versions": 2}}


@pytest.mark.parametrize("name", ["config.pbtxt", "config.yaml"])
def test_an_empty_file_has_all_defaults_and_the_name(model: Path, name: str) -> None:
    (model / name).touch()
    config = read_config(model)
    assert config is not None
    assert (config["name"], config["max_batch_size"], config["input"]) == ("digits", 0, [])
    assert "dynamic_batching" not in config


def test_both_forms_are_equal(model: Path) -> None:
    pbtxt, yaml = model / "config.pbtxt", model / "config.yaml"
    pbtxt.write_text('max_batch_size: 8 parameters { key: "a" value { string_value: "1" } }')
    from_pbtxt = read_config(model)
    pbtxt.unlink()
    yaml.write_text("max_batch_size: 8\nparameters: {a: 1}\n")
    assert read_config(model) == from_pbtxt


def test_defaults_that_are_not_zero(model: Path) -> None:
    (model / "config.pbtxt").write_text("instance_group { } version_policy { latest { } }")
    config = read_config(model)
    assert config is not None
    assert config["instance_group"][0]["count"] == 1
    assert config["version_policy"] == {"latest": {"num_versions": 1}}


def test_what_backends_complete_may_be_missing(model: Path) -> None:
    (model / "config.pbtxt").write_text(
        'input { name: "I" } dynamic_batching { preferred_batch_size: 8 }'
    )
    assert read_config(model) is not None


def test_both_files_are_one_too_many(model: Path) -> None:
    (model / "config.yaml").touch()
    text = error(model, "")
    assert text == "config.pbtxt and config.yaml are both there; expected only one of them"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '\nname: "other"',
            "2: name is 'other'; expected 'digits', the name of the model's folder",
        ),
        ("max_batch_size: -1", "1: max_batch_size is -1; expected 0 (no batch dimension) or more"),
        (
            'input [\n {name: "I"},\n {name: "I"}\n]',
            "3: input[1].name is 'I', as is that of input[0]; expected different names",
        ),
        ("input {\n\n}", "1: input[0].name is not given; expected the tensor's name"),
        (
            'input {\n name: "I"\n dims: [\n1,\n0]\n}',
            "5: input[0].dims[1] is 0; expected -1 (any size), or 1 or more",
        ),
        ("input { data_type: TYPE_INVALID }", "1: input[0].data_type is TYPE_INVALID; did you"),
        (
            "max_batch_size: 4\ndynamic_batching {\n preferred_batch_size: [2, 8]\n}",
            "3: dynamic_batching.preferred_batch_size[1] is 8;"
            " expected 1 to max_batch_size, which is 4",
        ),
        (
            "version_policy {\n latest {\n num_versions: 0 } }",
            "3: version_policy.latest.num_versions is 0; expected 1 or more",
        ),
        (
            "sequence_batching { \n direct { minimum_slot_utilization: 2 } }",
            "2: sequence_batching.direct.minimum_slot_utilization is 2.0; expected 0 to 1",
        ),
        (
            "\nplatform: 'ensemble'",
            "2: platform is 'ensemble'; expected ensemble_scheduling beside it",
        ),
        (
            "dynamic_batching { preserve_ordering: true }\nmodel_transaction_policy {\n decoupled: true }",
            "3: model_transaction_policy.decoupled is true beside dynamic_batching.preserve_ordering;"
            " expected one of them",
        ),
        (
            "instance_group [\n {kind: KIND_CPU},\n {kind: KIND_MODEL\n gpus: [0]}]",
            "4: instance_group[1].gpus are given with KIND_MODEL;"
            " expected them only with KIND_GPU or KIND_AUTO",
        ),
        (
            'cc_model_filenames {\n key: "7.5"\n value: "a/b" }',
            "2: cc_model_filenames['7.5'] is 'a/b';"
            " expected the name of a file in the version's folder, without a path",
        ),
        (
            'output { name: "O"\n label_filename: "labels.txt" }',
            "2: output[0].label_filename can't be used: label file 'labels.txt' is not in the"
            " model's folder",
        ),
        (
            'output { name: "O" label_filename: "../x" }',
            "1: output[0].label_filename can't be used: label file '../x' is outside",
        ),
        ("# é\nmax_batch_size: 1\nname: $", "3: found '$'; expected a key or a value"),
    ],
)
def test_errors_name_the_line(model: Path, text: str, expected: str) -> None:
    assert error(model, text).startswith(f"config.pbtxt:{expected}")


def test_errors_name_the_line_of_yaml_too(model: Path) -> None:
    text = "input:\n  - name: I\n    dims:\n      - 1\n      - 0\n"
    expected = "config.yaml:5: input[0].dims[1] is 0; expected -1 (any size), or 1 or more"
    assert error(model, text, "config.yaml") == expected


def test_not_utf8(model: Path) -> None:
    expected = "config.pbtxt:2: byte 0xff is not UTF-8; expected UTF-8 text"
    assert error(model, b"name: 'digits'\n\xff") == expected


def test_a_byte_order_mark_is_not_content(model: Path) -> None:
    (model / "config.pbtxt").write_bytes(b"\xef\xbb\xbfmax_batch_size: 2")
    config = read_config(model)
    assert config is not None
    assert config["max_batch_size"] == 2


def test_a_large_file(model: Path) -> None:
    text = error(model, "#" * (MAX_BYTES + 1))
    assert text == "config.pbtxt: over 1048576 bytes; expected a model's configuration"


def test_a_folder_and_a_pipe_are_no_files(model: Path) -> None:
    (model / "config.pbtxt").mkdir()
    with pytest.raises(ConfigError, match=r"config\.pbtxt: not a file"):
        read_config(model)
    (model / "config.pbtxt").rmdir()
    os.mkfifo(model / "config.yaml")
    with pytest.raises(ConfigError, match=r"config\.yaml: not a file"):
        read_config(model)


def test_a_link_to_nothing(model: Path) -> None:
    (model / "config.pbtxt").symlink_to(model / "gone")
    with pytest.raises(ConfigError, match=r"config\.pbtxt: can't be read: a link to nothing"):
        read_config(model)


def test_an_unreadable_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (model / "config.pbtxt").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"config\.pbtxt: can't be read: Permission denied"):
        read_config(model)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["config.pbtxt", "config.yaml"]),
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
)
def test_any_bytes_are_read_or_refused(model: Path, name: str, content: bytes) -> None:
    for other in model.iterdir():
        other.unlink()
    (model / name).write_bytes(content)
    try:
        config = read_config(model)
    except ConfigError as refused:
        assert str(refused).startswith(f"{model / name}:")
    else:
        assert config is not None


VALUES = st.sampled_from(
    ["-1", "0", "1", "4", '"a"', '"../a"', "KIND_GPU", "KIND_CPU", "TYPE_FP32"]
)
BLOCKS = (
    "max_batch_size: {}",
    "name: {}",
    "input {{ name: {} dims: {} reshape {{ shape: {} }} }}",
    "output {{ name: {} label_filename: {} dims: {} }}",
    "instance_group {{ count: {} kind: {} gpus: {} }}",
    "dynamic_batching {{ preferred_batch_size: {} priority_levels: {} }}",
    "version_policy {{ specific {{ versions: {} }} }}",
    "default_model_filename: {}",
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(BLOCKS), VALUES, VALUES, VALUES), max_size=4))
def test_any_values_are_read_or_refused(
    model: Path, parts: list[tuple[str, str, str, str]]
) -> None:
    text = "\n".join(block.format(*values) for block, *values in parts)
    (model / "config.pbtxt").write_text(text)
    try:
        read_config(model)
    except ConfigError as refused:
        line = int(str(refused).removeprefix(f"{model / 'config.pbtxt'}:").split(":")[0])
        assert 1 <= line <= len(parts)
