"""What a configuration asks for in vain, each with the line it stands in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.config import Settings
from penstock.repository.checks.config_warnings import CACHE_FLAG, LIMIT_FLAG
from penstock.repository.checks.model_check import check_model

pytestmark = pytest.mark.extension("check")

TENSORS = """
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 3 ] } ]
"""
PYTHON = f'backend: "python" {TENSORS.replace(chr(10), " ")}'
"""One line."""
ONNX = PYTHON.replace("python", "onnxruntime")
BATCHED = "max_batch_size: 8\n"


def own(**parameters: object) -> str:
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    )


def found(folder: Path, text: str, model_file: str = "model.py") -> list[tuple[str, int, str]]:
    """Severity, line and text of all findings."""
    (folder / "m" / "1").mkdir(parents=True)
    (folder / "m" / "1" / model_file).touch()
    (folder / "m" / "config.pbtxt").write_text(text)
    findings = check_model(folder / "m").findings
    assert {finding.file for finding in findings} <= {str(folder / "m" / "config.pbtxt")}
    return [(finding.severity, finding.line, finding.text) for finding in findings]


@pytest.mark.parametrize(
    "text",
    [
        PYTHON,
        f"{PYTHON}\n{BATCHED} dynamic_batching {{ preferred_batch_size: [ 4, 8 ] }}",
        f"{PYTHON}\n{BATCHED} dynamic_batching {{ max_queue_delay_microseconds: 100 }}\n"
        + own(slo_p99_ms=5),
        f"{PYTHON}\n{BATCHED} dynamic_batching {{ priority_levels: 2 default_priority_level: 1 }}",
        f"{PYTHON}\ndynamic_batching {{ default_queue_policy {{ max_queue_size: 5 }} }}",
        f"{PYTHON}\n{BATCHED} dynamic_batching {{ default_queue_policy {{ timeout_action: DELAY"
        " default_timeout_microseconds: 5 } }",
        f"{PYTHON}\n{BATCHED} dynamic_batching {{ default_queue_policy {{ timeout_action: DELAY"
        " allow_timeout_override: true } }",
        f'{PYTHON}\ninstance_group [ {{ rate_limiter {{ resources [ {{ name: "R" }} ] }} }} ]',
        f"{PYTHON}\n{own(threshold=0.5, execution_timeout_ms=3)}",
        f"{PYTHON}\noptimization {{ graph {{ level: 1 }} }}",
        f"{PYTHON}\nresponse_cache {{ enable: true }}",
        f'{PYTHON}\nplatform: "python"',
        BATCHED + PYTHON.replace("dims: [ 3 ]", "dims: [ -1 ] allow_ragged_batch: true", 1),
        f"{PYTHON}\ninstance_group [ {{ count: 2 kind: KIND_CPU }} ]",
    ],
)
def test_what_has_an_effect(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (
            "dynamic_batching {\n max_queue_delay_microseconds: 100 }",
            3,
            "dynamic_batching.max_queue_delay_microseconds has no effect: max_batch_size is 0",
        ),
        (
            "dynamic_batching { preferred_batch_size: [ 4 ] }",
            2,
            "dynamic_batching.preferred_batch_size has no effect: max_batch_size is 0",
        ),
        (
            'input { name: "Z" data_type: TYPE_FP32 dims: [ -1 ]\n allow_ragged_batch: true }',
            3,
            "input[1].allow_ragged_batch has no effect: max_batch_size is 0, so requests run alone",
        ),
        ("dynamic_batching { }", 2, "dynamic_batching has no effect: max_batch_size is 0"),
        (
            BATCHED + "dynamic_batching {\n default_priority_level: 1 }",
            4,
            "dynamic_batching.default_priority_level has no effect without priority_levels",
        ),
        (
            BATCHED
            + "dynamic_batching { default_queue_policy {\n allow_timeout_override: true } }",
            4,
            "default_queue_policy.allow_timeout_override has no effect without default_timeout",
        ),
        (
            BATCHED
            + "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy"
            " { key: 2 value: {\n timeout_action: DELAY } } }",
            4,
            "priority_queue_policy['2'].timeout_action has no effect without default_timeout",
        ),
        (
            BATCHED
            + "dynamic_batching { max_queue_delay_microseconds: 9000 }\n"
            + own(slo_p99_ms=5),
            4,
            "parameters['slo_p99_ms'] is over before max_queue_delay_microseconds (9000) is",
        ),
        (own(slo_p99_msec=5), 2, "parameters['slo_p99_msec'] is not known; did you mean"),
        ("optimization {\n input_pinned_memory { enable: true } }", 3, "it is for GPUs"),
        (
            "optimization {\n cuda { graphs: true } }",
            3,
            "optimization.cuda.graphs has no effect: it is for tensorrt",
        ),
        (
            "optimization { execution_accelerators {\n gpu_execution_accelerator [ { name: 'cuda' } ] } }",
            2,
            "optimization.execution_accelerators has no effect: it is for onnxruntime",
        ),
        ("instance_group [ {\n profile: [ '0' ] } ]", 3, "has no effect: it is for tensorrt"),
        ('platform: "onnxruntime_onnx"', 2, "platform is 'onnxruntime_onnx' and has no effect"),
    ],
)
def test_what_has_none(tmp_path: Path, text: str, line: int, expected: str) -> None:
    ((severity, where, said),) = found(tmp_path, f"{PYTHON}\n{text}")
    assert (severity, where) == ("warning", line)
    assert expected in said


def test_an_objective_of_a_stateful_model(tmp_path: Path) -> None:
    text = f"{PYTHON}\n{BATCHED}sequence_batching {{ }}\n{own(slo_p99_ms=5)}"
    ((severity, line, said),) = found(tmp_path, text)
    assert (severity, line) == ("warning", 4)
    assert "chooses no batches with sequence_batching" in said


def test_padding_is_known(tmp_path: Path) -> None:
    tensors = ONNX.replace("dims: [ 3 ]", "dims: [ -1 ]", 1)
    padding = own(**{"padding.X.buckets": "4, 8"})
    assert found(tmp_path, f"{BATCHED}{tensors}\n{padding}", "model.onnx") == []


def test_a_response_cache_of_a_stateful_model(tmp_path: Path) -> None:
    text = f"{PYTHON}\n{BATCHED}sequence_batching {{ }}\nresponse_cache {{ enable: true }}"
    ((severity, line, said),) = found(tmp_path, text)
    assert (severity, line) == ("warning", 4)
    assert "response_cache has no effect: the answers of stateful models differ" in said


def test_what_tensorrt_acts_on_is_known(tmp_path: Path) -> None:
    given = own(precision="fp16", profile_max_shapes="X:8", intra_op_thread_count=1, precisions=1)
    more = "instance_group [ { profile: [ '0' ] } ] optimization { cuda { graphs: true } }"
    text = f"{ONNX.replace('onnxruntime', 'tensorrt')}\n{given}\n{more}"
    for file in ("model.onnx", "model.plan"):
        (finding,) = found(tmp_path / file, text, file)
        assert "parameters['precisions'] is not known; did you mean 'precision'?" in finding[2]


def test_tritons_names_of_backends_are_known(tmp_path: Path) -> None:
    text = f'{PYTHON.replace("python", "pytorch")}\nplatform: "pytorch_libtorch"'
    text += "\noptimization { cuda { graphs: true } }"
    assert found(tmp_path, text, "model.pt") == []


def test_parameters_of_onnx_models_are_known(tmp_path: Path) -> None:
    parameters = own(
        **{"intra_op_thread_count": 1, "session.x": 1, "inter_op_threads": 1, "colour": "blue"}
    )
    findings = found(tmp_path, f"{ONNX}\n{parameters}", "model.onnx")
    assert [line for _, line, _ in findings] == [4, 5]
    assert "did you mean 'inter_op_thread_count'?" in findings[0][2]
    assert "parameters['colour'] has no effect; known are" in findings[1][2]


def test_parameters_of_torch_models_are_known(tmp_path: Path) -> None:
    given = own(channels_last="auto", INFERENCE_MODE=1, chanels_last=1, colour="blue")
    text = f"{PYTHON.replace('python', 'torch')}\n{given}"
    slip, unknown = found(tmp_path / "script", text, "model.pt")
    assert "parameters['chanels_last'] is not known; did you mean 'channels_last'?" in slip[2]
    assert "parameters['colour'] has no effect; known are" in unknown[2]
    # a class may have parameters of its own
    assert found(tmp_path / "class", text, "model.py") == [slip]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("max_batch_sizes: 4", 2, "unknown key 'max_batch_sizes'; did you mean 'max_batch_size'?"),
        (
            BATCHED + "dynamic_batching { preferred_batch_size: [ 4,\n 16 ] }",
            4,
            "dynamic_batching.preferred_batch_size[1] is 16; expected 1 to max_batch_size",
        ),
        ('name: "other"', 2, "name is 'other'; expected 'm'"),
        (own(slo_p99_ms="soon"), 2, "is 'soon'; expected a number of milliseconds above 0"),
        (
            "version_policy { specific { versions: [ 1, 7 ] } }",
            2,
            "version_policy.specific asks for version 7; the model's folder has 1",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, line: int, expected: str) -> None:
    ((severity, where, said),) = found(tmp_path, f"{PYTHON}\n{text}")
    assert (severity, where) == ("error", line)
    assert expected in said


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = 'backend: "pythn"\nmax_batch_size: -1\ninstance_group [ { count: -2 } ]\n' + TENSORS
    assert [(severity, line) for severity, line, _ in found(tmp_path, text)] == [
        ("error", 1),
        ("error", 2),
        ("error", 3),
    ]


def test_what_has_no_effect_with_the_servers_settings(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.py").touch()
    limited = 'instance_group [ { rate_limiter { resources [ { name: "R" count: 1 } ] } } ]'
    text = f"{PYTHON}\nresponse_cache {{ enable: true }}\n{limited}"
    (tmp_path / "m" / "config.pbtxt").write_text(text)

    def warned(**settings: Any) -> list[tuple[int, str]]:
        known = Settings(model_repository=(tmp_path,), **settings)
        return [(each.line, each.text) for each in check_model(tmp_path / "m", known).findings]

    assert warned() == [
        (2, f"response_cache has no effect without {CACHE_FLAG}"),
        (3, f"instance_group[0].rate_limiter.resources has no effect without {LIMIT_FLAG}"),
    ]
    assert warned(cache_config=("local,size=1MiB",), rate_limit="execution_count") == []
