"""Outputs → ModelStreamInferResponse bytes: a ModelInferResponse, or an error with the request that it is of."""

from __future__ import annotations

from typing import Any, Final

from penstock.errors import PenstockError
from penstock.gateway.grpc_response import PREFIX, GrpcEncoder, varint
from penstock.gateway.status import text_of
from penstock.protobuf import message_class
from penstock.repository.served_model import ServedModel
from penstock.types import OutputTensor
from penstock.workers.request import PendingRequest

TAG_INFER_RESPONSE: Final = b"\x12"
FINAL: Final = "triton_final_response"
"""Parameter of every response on a stream: whether it is the last one of its request."""

UNKNOWN_BYTES: Final = 1 << 20
"""How large an answer is taken for of a model that has given none yet."""


class StreamEncoder(GrpcEncoder):
    """Encodes one model version's responses on streams. The only response of a request is its last one, and so is what
    is encoded without saying."""

    def __init__(self, model: ServedModel, *, framed: bool) -> None:
        super().__init__(model, framed=framed)
        self._head = _framed_head if framed else _head
        self.name: Final = model.name
        self.version: Final = str(model.version)
        response = message_class("inference.ModelInferResponse")
        self._last, self._more = (
            self._constant + response(parameters=_final(flag)).SerializeToString()
            for flag in (True, False)
        )
        self._constant = self._last
        self.expected_bytes = UNKNOWN_BYTES
        """How large the model's next answer may well be: as the largest of late."""
        self._any = False

    def of(self, model: ServedModel) -> StreamEncoder:
        """As Retargetable."""
        return StreamEncoder(model, framed=self._framed)

    def learn(self, nbytes: int) -> None:
        """An answer was so large."""
        before = self.expected_bytes if self._any else 0
        self.expected_bytes = max(nbytes, before - before // 8)
        self._any = True

    def part(self, request: PendingRequest, outputs: list[OutputTensor], *, final: bool) -> bytes:
        """One of several responses. Raises InvalidRequest as for any response."""
        return self(request, outputs, self._last if final else self._more)


class StreamMessages:
    """Makes the messages of streams that have no outputs."""

    def __init__(self, *, framed: bool) -> None:
        """`framed`: with gRPC's five-byte prefix."""
        self._framed = framed
        self._message: Any = message_class("inference.ModelStreamInferResponse")

    def error(
        self, error: PenstockError, request_id: str, model: str, version: str, *, final: bool
    ) -> bytes:
        """What a request's client hears of its error."""
        message = self._message(error_message=text_of(error) or type(error).__name__)
        return self._about(message, request_id, model, version, final=final)

    def empty(self, request_id: str, model: str, version: str) -> bytes:
        """The last response of a request that has nothing to say but that."""
        return self._about(self._message(), request_id, model, version, final=True)

    def _about(
        self, message: Any, request_id: str, model: str, version: str, *, final: bool
    ) -> bytes:
        response = message.infer_response
        response.id, response.model_name, response.model_version = request_id, model, version
        response.parameters[FINAL].bool_param = final
        data: bytes = message.SerializeToString()
        return PREFIX.pack(0, len(data)) + data if self._framed else data


def _final(flag: bool) -> dict[str, Any]:
    return {FINAL: message_class("inference.InferParameter")(bool_param=flag)}


def _head(size: int) -> bytes:
    return TAG_INFER_RESPONSE + varint(size)


def _framed_head(size: int) -> bytes:
    head = TAG_INFER_RESPONSE + varint(size)
    return PREFIX.pack(0, len(head) + size) + head
