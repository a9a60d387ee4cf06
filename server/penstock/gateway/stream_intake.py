"""Messages of streams → requests in their models' queues."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from penstock.gateway.aside import LARGE_BYTES, Aside
from penstock.gateway.grpc_request import Decoded, GrpcInferDecoder
from penstock.gateway.grpc_stream_response import StreamEncoder, StreamMessages
from penstock.gateway.inference import Bound, Inference
from penstock.gateway.request_parameters import EMPTY_FINAL
from penstock.gateway.streamed_request import StreamedRequest
from penstock.protobuf import message_class
from penstock.repository.served_model import ServedModel
from penstock.types import CallTerms


class StreamIntake:
    """What all streams of a gateway share. Errors are those of `GrpcService.infer`."""

    def __init__(
        self, inference: Inference, decoder: GrpcInferDecoder, aside: Aside, *, framed: bool
    ) -> None:
        """`framed`: whether responses begin with gRPC's five-byte prefix."""
        self._inference = inference
        self._decoder = decoder
        self._aside = aside
        self._framed = framed
        self._encoders: dict[int, tuple[ServedModel, StreamEncoder]] = {}
        self._encoders_of = -1
        self.messages: Final = StreamMessages(framed=framed)

    async def decode(self, message: bytes) -> Decoded:
        """A request's header, id and tensor bytes."""
        if len(message) < LARGE_BYTES:
            return self._decoder.decode(message)
        return await self._aside.run(self._decoder.decode, message)

    def bind(self, request: StreamedRequest, decoded: Decoded, terms: CallTerms) -> Bound:
        """The request's model, which the request learns too."""
        header, request.id, _ = decoded
        bound = self._inference.bind(header, terms, request.id)
        request.bind(
            self._encoder(bound),
            decoupled=bound.model.config.decoupled,
            tells_end=bool(header.parameters.get(EMPTY_FINAL, False)),
        )
        return bound

    def submit(
        self, request: StreamedRequest, bound: Bound, decoded: Decoded, terms: CallTerms
    ) -> None:
        """Queue a request that is bound."""
        pending = self._inference.submit(
            bound,
            request.id,
            decoded[2],
            request,
            request.respond,
            request.received_bytes,
            terms,
            request if request.decoupled else None,
        )
        if not pending.done:
            request.pending = pending

    async def identify(self, request: StreamedRequest, message: bytes) -> None:
        """Have a request that could not be bound know what its client knows it by."""
        if len(message) < LARGE_BYTES:
            known = _identity(message)
        else:
            known = await self._aside.run(_identity, message)
        request.id, request.model, request.version = known

    def _encoder(self, bound: Bound) -> StreamEncoder:
        entry = self._encoders.get(id(bound.model))
        if entry is None:
            if self._encoders_of != bound.generation:
                self._encoders.clear()
                self._encoders_of = bound.generation
            entry = bound.model, StreamEncoder(bound.model, framed=self._framed)
            self._encoders[id(bound.model)] = entry
        return entry[1]


def _identity(message: bytes) -> tuple[str, str, str]:
    """Id, model and version of a request, as far as the message has any."""
    cls: Any = message_class("inference.ModelInferRequest")
    try:
        parsed = cls.FromString(message)
    except (DecodeError, RecursionError):
        return "", "", ""
    return parsed.id, parsed.model_name, parsed.model_version
