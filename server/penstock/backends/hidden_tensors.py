"""Tensors of stateful models that clients don't see: controls and states. To the backend they are like any others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from penstock.model_config import (
    CORRELATION_ID,
    ConfigDict,
    Control,
    SequenceBatching,
)


def hidden_names(batching: SequenceBatching, config: ConfigDict) -> frozenset[str]:
    """Controls and states, but for those states that the configuration lists among its outputs."""
    outputs = {tensor["name"] for tensor in config.get("output") or ()}
    return frozenset(
        (
            *(control.name for control in batching.control_input),
            *(state.input_name for state in batching.state),
            *(state.output_name for state in batching.state if state.output_name not in outputs),
        )
    )


def extended(config: ConfigDict, batching: SequenceBatching) -> ConfigDict:
    """The configuration with controls and states among its inputs and outputs.

    Where it has no inputs, or no outputs, it is left to the model to say which ones there are.
    """
    tensors = {"input": list(_inputs(batching)), "output": list(_outputs(batching))}
    wider = dict(config)
    for kind, hidden in tensors.items():
        given = config.get(kind) or ()
        if given:
            names = {tensor["name"] for tensor in given}
            wider[kind] = [*given, *(tensor for tensor in hidden if tensor["name"] not in names)]
    return wider


def without(config: ConfigDict, hidden: Collection[str]) -> ConfigDict:
    """The configuration as clients see it."""
    if not hidden:
        return config
    return config | {
        kind: [tensor for tensor in config.get(kind) or () if tensor["name"] not in hidden]
        for kind in ("input", "output")
    }


def control_type(control: Control) -> str:
    """The datatype of a control input, in Triton's spelling."""
    if control.kind == CORRELATION_ID:
        return control.data_type
    if control.int32_false_true:
        return "TYPE_INT32"
    return "TYPE_FP32" if control.fp32_false_true else "TYPE_BOOL"


def _inputs(batching: SequenceBatching) -> Iterator[Mapping[str, Any]]:
    for given in batching.control_input:
        data_type = control_type(given.control[0])
        yield {"name": given.name, "data_type": data_type, "dims": [1]}
    for state in batching.state:
        yield {
            "name": state.input_name,
            "data_type": state.data_type,
            "dims": list(state.dims),
        }


def _outputs(batching: SequenceBatching) -> Iterator[Mapping[str, Any]]:
    for state in batching.state:
        yield {
            "name": state.output_name,
            "data_type": state.data_type,
            "dims": list(state.dims),
        }
