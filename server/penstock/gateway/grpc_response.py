"""Outputs → ModelInferResponse bytes, written by hand: one copy of the tensors, straight out of the slab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any, Final

from penstock.gateway.outputs import chosen_outputs
from penstock.protobuf import message_class
from penstock.repository.served_model import ServedModel
from penstock.types import OutputTensor, Parameter, RegionRef
from penstock.workers.request import PendingRequest

PREFIX: Final = Struct(">BI")
"""A gRPC message's prefix: compressed flag, length."""

TAG_ID: Final = b"\x1a"
TAG_OUTPUT: Final = b"\x2a"
TAG_RAW_OUTPUT: Final = b"\x32"
MAX_SHAPES: Final = 256

_PARAMETER_KINDS: Final[Mapping[type, str]] = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}

Description = tuple[str, str, tuple[int, ...], RegionRef | None]
"""An output's name, datatype, shape, and where its bytes are if not in the response."""


class GrpcEncoder:
    """Encodes the responses of one model version."""

    def __init__(self, model: ServedModel, *, framed: bool) -> None:
        """`framed`: with gRPC's five-byte prefix, for fronts that write messages to the wire themselves."""
        self._model = model
        self._framed = framed
        self._head: Callable[[int], bytes] | None = partial(PREFIX.pack, 0) if framed else None
        """What comes before a response of so many bytes."""
        self._response = message_class("inference.ModelInferResponse")
        self._constant = self._response(
            model_name=model.name, model_version=str(model.version)
        ).SerializeToString()
        self._output = message_class("inference.ModelInferResponse.InferOutputTensor")
        self._described: dict[Description, bytes] = {}

    def of(self, model: ServedModel) -> GrpcEncoder:
        """As Retargetable."""
        return GrpcEncoder(model, framed=self._framed)

    def __call__(
        self, request: PendingRequest, outputs: list[OutputTensor], constant: bytes = b""
    ) -> bytes:
        """The response's bytes. Raises InvalidRequest for classes of an output that has none.

        `constant`: what it begins with, where that is not the same for all responses of the model.
        """
        plan = request.plan
        if plan.output_names or plan.classes:
            outputs = chosen_outputs(self._model, plan, outputs)
        parts: list[bytes | bytearray | memoryview] = [b"", constant or self._constant]
        if request.id:
            encoded_id = request.id.encode()
            parts += (TAG_ID, varint(len(encoded_id)), encoded_id)
        if request.response_parameters:
            parts.append(self._parameters(request.response_parameters))
        described = self._described
        for output in outputs:
            key = (output.name, output.datatype, output.shape, output.region)
            parts.append(described.get(key) or self._describe(key))
        for output in outputs:
            data = output.data
            parts += (TAG_RAW_OUTPUT, varint(len(data)), data)
        if self._head is not None:
            parts[0] = self._head(sum(map(len, parts)))
        return b"".join(parts)

    def _parameters(self, parameters: Mapping[str, Parameter]) -> bytes:
        """The parameters field."""
        message: Any = self._response()
        for name, value in parameters.items():
            kind = _PARAMETER_KINDS[type(value)]
            if isinstance(value, int) and value >= 2**63:
                kind = "uint64_param"
            setattr(message.parameters[name], kind, value)
        encoded: bytes = message.SerializeToString()
        return encoded

    def _describe(self, key: Description) -> bytes:
        """The InferOutputTensor field of an output of this shape."""
        name, datatype, shape, region = key
        described: Any = self._output(name=name, datatype=datatype, shape=shape)
        if region is not None:
            described.parameters["shared_memory_region"].string_param = region.name
            described.parameters["shared_memory_offset"].int64_param = region.offset
            described.parameters["shared_memory_byte_size"].int64_param = region.byte_size
        message: bytes = described.SerializeToString()
        field = TAG_OUTPUT + varint(len(message)) + message
        if len(self._described) >= MAX_SHAPES:
            self._described.clear()
        self._described[key] = field
        return field


_ONE_BYTE: Final = tuple(bytes([value]) for value in range(128))


def varint(value: int) -> bytes:
    """Protobuf's base-128 form of a non-negative integer."""
    if value < 128:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
