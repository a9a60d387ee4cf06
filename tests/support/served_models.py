"""The model repositories that the end-to-end tests serve, written from `tests/apps`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model_files import ONNX_TYPES, write_onnx, write_onnx_identity

APPS: Final = Path(__file__).parent.parent / "apps"
TRITON_TYPES: Final = {
    name: "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}" for name in ONNX_TYPES
}
"""Protocol datatype → its name in config.pbtxt."""

LABELS: Final = ("zero", "one", "two")
BROKEN: Final = ("broken_config", "broken_empty", "broken_init", "broken_onnx")
"""Models of `write_repository` that can't be loaded."""

PUPPET: Final = """
    input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
    output [
      { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] },
      { name: "TOLD" data_type: TYPE_STRING dims: [ 1 ] }
    ]
"""
DELAYING: Final = """
    dynamic_batching {
      priority_levels: 2
      default_priority_level: 1
      default_queue_policy {
        timeout_action: DELAY
        default_timeout_microseconds: 60000000
        allow_timeout_override: true
      }
      priority_queue_policy { key: 2 value: { max_queue_size: 1 } }
    }
"""
XY: Final = """
    input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
    output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""


def write_repository(folder: Path) -> None:
    """All models of the shared server."""
    _write_types(folder)
    _write_broken(folder)
    _write_versions(folder)
    _write_onnx_models(folder)
    pair = "instance_group [ { count: 2 kind: KIND_CPU } ]"
    batched = "max_batch_size: 8\ndynamic_batching { }"
    tags = 'metric_tags { key: "team" value: "blue" }'
    write_model(folder / "puppet", "puppet", f"{batched}\n{tags}\n{PUPPET}")
    write_model(folder / "puppet_alone", "puppet", f"max_batch_size: 8\n{PUPPET}")
    write_model(folder / "puppet_pair", "puppet", f"{batched}\n{pair}\n{PUPPET}")
    write_model(
        folder / "puppet_ordered",
        "puppet",
        "max_batch_size: 1\ndynamic_batching { preserve_ordering: true }\n" + pair + PUPPET,
    )
    write_model(
        folder / "puppet_short",
        "puppet",
        "max_batch_size: 1\n"
        "dynamic_batching { default_queue_policy { max_queue_size: 2 } }" + PUPPET,
    )
    write_model(
        folder / "puppet_patient",
        "puppet",
        "max_batch_size: 8\ndynamic_batching { preferred_batch_size: [ 2 ] "
        "max_queue_delay_microseconds: 60000000 }" + PUPPET,
    )
    write_model(
        folder / "puppet_levels",
        "puppet",
        "max_batch_size: 1\n"
        "dynamic_batching { priority_levels: 3 default_priority_level: 2 }" + PUPPET,
    )
    write_model(
        folder / "puppet_impatient",
        "puppet",
        "max_batch_size: 1\ndynamic_batching { default_queue_policy {"
        " default_timeout_microseconds: 200000 } }" + PUPPET,
    )
    write_model(folder / "puppet_delaying", "puppet", "max_batch_size: 1\n" + DELAYING + PUPPET)
    write_model(
        folder / "puppet_hanging", "puppet", f"{batched}\n{own(execution_timeout_ms=300)}\n{PUPPET}"
    )
    write_model(folder / "steady", "steady", f"{batched}\n{XY}")
    write_model(folder / "steady_slo", "steady", f"{batched}\n{own(slo_p99_ms=200)}\n{XY}")
    write_model(folder / "doubled", "doubled", None)
    (folder / "doubled" / "config.yaml").write_text("max_batch_size: 6\ndynamic_batching: {}\n")


def write_attacked(folder: Path) -> None:
    """A few models, of each kind of input and of failure."""
    write_model(folder / "puppet", "puppet", f"max_batch_size: 8\ndynamic_batching {{ }}\n{PUPPET}")
    string = "data_type: TYPE_STRING dims: [ 1 ]"
    write_model(
        folder / "text",
        "mirror",
        f'max_batch_size: 4 input [ {{ name: "X" {string} }} ] output [ {{ name: "Y" {string} }} ]',
    )
    write_onnx_identity(folder / "classes", "FP32", ["batch", 4])
    _write_broken(folder)


def write_add_sub(folder: Path) -> None:
    """The classic, in ONNX and without a configuration."""
    write_onnx(
        folder,
        [("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), ("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
        {name: ("FP32", [4]) for name in ("INPUT0", "INPUT1")},
        {name: ("FP32", [4]) for name in ("OUTPUT0", "OUTPUT1")},
    )


def write_model(folder: Path, app: str, config: str | None, versions: Sequence[int] = (1,)) -> None:
    """A Python model whose source is `tests/apps/APP.py`."""
    for version in versions:
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "model.py").write_text((APPS / f"{app}.py").read_text())
    if config is not None:
        write_config(folder, f'backend: "python"\n{config}')


def own(**parameters: float | str) -> str:
    """Penstock's own keys, as config.pbtxt has them."""
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    )


def write_config(folder: Path, text: str) -> None:
    """The model's config.pbtxt."""
    (folder / "config.pbtxt").write_text(textwrap.dedent(text))


def _write_types(folder: Path) -> None:
    """Identities of all datatypes: in Python one whose inputs are all optional, in ONNX one of numbers."""
    tensors = [f"data_type: {name} dims: [ -1 ]" for name in TRITON_TYPES.values()]
    named = list(zip(TRITON_TYPES, tensors, strict=True))
    inputs = ", ".join(f'{{ name: "X_{t}" {rest} optional: true }}' for t, rest in named)
    outputs = ", ".join(f'{{ name: "Y_{t}" {rest} }}' for t, rest in named)
    tail = f"\ninput [ {inputs} ]\noutput [ {outputs} ]\n"
    write_model(folder / "types", "mirror", "max_batch_size: 4\ndynamic_batching { }" + tail)
    # ONNX Runtime's own interface can't take strings and BF16 together
    numbers = [name for name in ONNX_TYPES if name != "BYTES"]
    write_onnx(
        folder / "types_onnx",
        [("Identity", [f"X_{t}"], [f"Y_{t}"]) for t in numbers],
        {f"X_{t}": (t, ["batch", "n"]) for t in numbers},
        {f"Y_{t}": (t, ["batch", "n"]) for t in numbers},
    )
    write_onnx_identity(folder / "text_onnx", "BYTES", ["batch", "n"])
    write_model(
        folder / "text",
        "mirror",
        """
        max_batch_size: 4
        input [ { name: "X" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [ { name: "Y" data_type: TYPE_STRING dims: [ 1 ] } ]
        """,
    )


def _write_onnx_models(folder: Path) -> None:
    write_onnx_identity(folder / "bare", "FP32", ["batch", 3])
    write_add_sub(folder / "add_sub")
    write_onnx_identity(folder / "classes", "FP32", ["batch", 4])
    (folder / "classes" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    write_config(
        folder / "classes",
        """
        backend: "onnxruntime"
        max_batch_size: 4
        input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
        output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]
        """,
    )


def _write_versions(folder: Path) -> None:
    for name, policy, versions in (
        ("newest", "", (1, 2)),
        ("newest_two", "version_policy { latest { num_versions: 2 } }", (1, 2, 3)),
        ("every", "version_policy { all { } }", (1, 3)),
        ("chosen", "version_policy { specific { versions: [ 1 ] } }", (1, 2)),
    ):
        write_model(folder / name, "mirror", f"max_batch_size: 2\n{policy}\n{XY}", versions)


def _write_broken(folder: Path) -> None:
    write_model(folder / "broken_config", "mirror", f"max_batch_size: -3\n{XY}")
    (folder / "broken_empty").mkdir()
    write_config(folder / "broken_empty", f'backend: "python"\n{XY}')
    write_model(folder / "broken_init", "mirror", XY)
    (folder / "broken_init" / "1" / "model.py").write_text("raise RuntimeError('no weights')\n")
    (folder / "broken_onnx" / "1").mkdir(parents=True)
    (folder / "broken_onnx" / "1" / "model.onnx").write_bytes(b"not a model")
