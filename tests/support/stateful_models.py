"""Stateful models for the end-to-end tests: in Python with a dictionary, in ONNX with implicit state."""

from __future__ import annotations

from pathlib import Path

from model_files import write_onnx
from served_models import write_config, write_model

TALLY_TENSORS = """
    input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]
    output [
      { name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] },
      { name: "TOLD" data_type: TYPE_STRING dims: [ 1 ] }
    ]
"""


def control(name: str, kind: str, values: str) -> str:
    """One `control_input`."""
    return f'control_input [ {{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{kind} {values} }} ] }} ]\n'


CONTROLS = (
    control("START", "START", "int32_false_true: [ 0, 1 ]")
    + control("END", "END", "bool_false_true: [ false, true ]")
    + control("READY", "READY", "fp32_false_true: [ 0, 1 ]")
)
SHORT_IDLE = "max_sequence_idle_microseconds: 300000\n"
LONG_IDLE = "max_sequence_idle_microseconds: 60000000\n"


def corrid(data_type: str) -> str:
    """The control that tells the id."""
    return control("CORRID", "CORRID", f"data_type: {data_type}")


def write_tally(
    folder: Path,
    strategy: str = "",
    *,
    id_type: str = "TYPE_STRING",
    max_batch_size: int = 4,
    more: str = "",
    idle: str = LONG_IDLE,
) -> None:
    """The Python model, told of everything."""
    batching = f"sequence_batching {{ {idle} {strategy} {CONTROLS} {corrid(id_type)} }}\n"
    write_model(
        folder, "tally", f"max_batch_size: {max_batch_size}\n{more}\n{batching}{TALLY_TENSORS}"
    )


STATE = """
    state [ {
      input_name: "SUM_BEFORE" output_name: "SUM_AFTER" data_type: TYPE_FP32 dims: [ 1 ]
      %s
    } ]
"""


def write_accumulator(
    folder: Path,
    strategy: str = "",
    *,
    initial: str = "",
    outputs: str = '{ name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] }',
    idle: str = LONG_IDLE,
) -> None:
    """The ONNX model: SUM is X and all X before it in its sequence, which is the state SUM_AFTER."""
    write_onnx(
        folder,
        [("Add", ["X", "SUM_BEFORE"], ["SUM_AFTER"]), ("Identity", ["SUM_AFTER"], ["SUM"])],
        {name: ("FP32", ["batch", 1]) for name in ("X", "SUM_BEFORE")},
        {name: ("FP32", ["batch", 1]) for name in ("SUM", "SUM_AFTER")},
    )
    write_config(
        folder,
        f"""
        backend: "onnxruntime"
        max_batch_size: 4
        input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
        output [ {outputs} ]
        sequence_batching {{ {idle} {strategy} {STATE % initial} }}
        """,
    )


def write_stateful_models(folder: Path) -> None:
    """All that the shared server of these tests has."""
    write_tally(folder / "tally_direct", "direct { }")
    write_tally(folder / "tally_oldest", "oldest { max_candidate_sequences: 4 }")
    write_tally(
        folder / "tally_waits",
        "direct { max_queue_delay_microseconds: 60000000 minimum_slot_utilization: 0.5 }",
    )
    write_tally(folder / "tally_idle", "oldest { max_candidate_sequences: 2 }", idle=SHORT_IDLE)
    write_tally(folder / "tally_one", "direct { }", max_batch_size=0)
    write_tally(folder / "tally_number", "direct { }", id_type="TYPE_INT32")
    write_accumulator(folder / "sums_direct", "direct { }")
    write_accumulator(folder / "sums_oldest", "oldest { max_candidate_sequences: 64 }")
    write_accumulator(
        folder / "sums_from_ten",
        initial='initial_state { name: "ten" data_type: TYPE_FP32 dims: [ 1 ] data_file: "ten" }',
        outputs='{ name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] },'
        ' { name: "SUM_AFTER" data_type: TYPE_FP32 dims: [ 1 ] }',
    )
    (folder / "sums_from_ten" / "initial_state").mkdir()
    (folder / "sums_from_ten" / "initial_state" / "ten").write_bytes(b"\0\0\x20\x41")
    write_bare_accumulator(folder / "sums_bare")


def write_bare_accumulator(folder: Path) -> None:
    """One whose configuration leaves inputs, outputs and batch size to the file."""
    write_accumulator(folder)
    (folder / "config.pbtxt").write_text(f"sequence_batching {{ {LONG_IDLE} {STATE % ''} }}")
