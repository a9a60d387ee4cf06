"""Inputs and outputs of networks and engines: their types in Triton's words, and in NumPy's. TensorRT is not imported:
its enumerations come in by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from penstock.backends.completion import ModelTensor, Signature
from penstock.backends.tensorrt_errors import TensorRtUnusable

DATA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "FLOAT": "TYPE_FP32",
        "HALF": "TYPE_FP16",
        "BF16": "TYPE_BF16",
        "INT8": "TYPE_INT8",
        "UINT8": "TYPE_UINT8",
        "INT32": "TYPE_INT32",
        "INT64": "TYPE_INT64",
        "BOOL": "TYPE_BOOL",
    }
)
"""Name of `tensorrt.DataType` → Triton's. FP8, INT4 and FP4 are for the inside of networks."""


def data_type(name: str, trt_type: Any) -> str:
    """Triton's name for the type of tensor `name`. Raises TensorRtUnusable for those that the protocol doesn't have."""
    found = DATA_TYPES.get(trt_type.name)
    if found is None:
        known = ", ".join(DATA_TYPES)
        raise TensorRtUnusable(
            f"{name!r} of the engine is {trt_type.name}, expected one of {known}"
        )
    return found


def network_signature(network: Any) -> Signature:
    """Of what is about to be built."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return Signature([_tensor(t) for t in inputs], [_tensor(t) for t in outputs])


def engine_signature(trt: Any, engine: Any) -> Signature:
    """Of what was built. Raises TensorRtUnusable where a tensor is not laid out as the protocol's are."""
    inputs: list[ModelTensor] = []
    outputs: list[ModelTensor] = []
    for name in engine_names(engine):
        for number in range(engine.num_optimization_profiles):
            layout = engine.get_tensor_format(name, number)
            if layout != trt.TensorFormat.LINEAR:
                raise TensorRtUnusable(
                    f"{name!r} of the engine is laid out as {layout.name}, expected LINEAR"
                )
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        shape = _shape(engine.get_tensor_shape(name))
        tensor = ModelTensor(
            name,
            data_type(name, engine.get_tensor_dtype(name)),
            shape or (),
            shape_known=shape is not None,
        )
        (inputs if is_input else outputs).append(tensor)
    return Signature(inputs, outputs)


def engine_names(engine: Any) -> Iterator[str]:
    """Of all its inputs and outputs."""
    for index in range(engine.num_io_tensors):
        yield engine.get_tensor_name(index)


def _tensor(tensor: Any) -> ModelTensor:
    shape = _shape(tensor.shape)
    known = shape is not None
    return ModelTensor(
        tensor.name, data_type(tensor.name, tensor.dtype), shape or (), shape_known=known
    )


def _shape(dims: Any) -> tuple[int, ...] | None:
    """None: how many there are follows from values."""
    try:
        return tuple(dims)
    except ValueError:
        # its length is -1
        return None
