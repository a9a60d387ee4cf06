"""Outputs → the body of a generate response, or an event of its stream: one flat JSON object."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.errors import InvalidRequest, PenstockError
from penstock.gateway.grpc_stream_response import FINAL
from penstock.gateway.http_response import MAX_JSON_BYTES
from penstock.gateway.json_tensors import format_elements
from penstock.gateway.status import text_of
from penstock.repository.served_model import ServedModel
from penstock.types import OutputTensor
from penstock.workers.request import PendingRequest

_encode: Final = msgspec.json.Encoder().encode


class GenerateEncoder:
    """Encodes one request's responses."""

    __slots__ = ("_model", "_tells_final", "final")

    def __init__(self, model: ServedModel, *, tells_final: bool) -> None:
        """`tells_final`: each response says whether it is the last one."""
        self._model = model
        self._tells_final = tells_final
        self.final = True
        """Of the response that is encoded next."""

    def of(self, model: ServedModel) -> GenerateEncoder:
        """As Retargetable."""
        self._model = model
        return self

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """The object. Raises InvalidRequest when an output can't be JSON."""
        fields: dict[str, Any] = {"id": request.id} if request.id else {}
        fields["model_name"] = self._model.name
        fields["model_version"] = str(self._model.version)
        if self._tells_final:
            fields[FINAL] = self.final
        for name, value in request.response_parameters.items():
            fields.setdefault(name, value)
        for output in outputs:
            fields.setdefault(output.name, _value(output))
        return _encode(fields)


def encode_error(error: PenstockError) -> bytes:
    """The object that stands for a response."""
    return _encode({"error": text_of(error)})


def _value(output: OutputTensor) -> Any:
    """A list, or the only element itself."""
    if len(output.data) > MAX_JSON_BYTES:
        raise InvalidRequest(
            f"output '{output.name}' has {len(output.data)} bytes, JSON may carry {MAX_JSON_BYTES}"
        )
    elements = format_elements(output)
    if isinstance(elements, msgspec.Raw):
        # numbers that msgspec has no form for
        text = bytes(elements)
        return elements if b"," in text else msgspec.Raw(text[1:-1])
    return elements[0] if len(elements) == 1 else elements
