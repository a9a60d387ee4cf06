"""POST …/infer: the HTTP form of an inference request, in and out."""

from __future__ import annotations

import time

from msgspec import structs

from penstock.errors import Unsupported
from penstock.gateway.aside import LARGE_BYTES, Aside
from penstock.gateway.client_memory import unwrapped
from penstock.gateway.compression import choose_encoding, compress
from penstock.gateway.http_request import DecodedHttpRequest, HttpInferDecoder
from penstock.gateway.http_response import encode_http_infer
from penstock.gateway.http_types import HttpRequest, HttpResponse, header
from penstock.gateway.inference import Inference
from penstock.gateway.outputs import chosen_outputs
from penstock.gateway.terms import from_now
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel
from penstock.tensors import serialize_bytes
from penstock.types import (
    Buffer,
    CallTerms,
    InferHeader,
    InferResponse,
    OutputTensor,
    RequestedOutput,
)
from penstock.workers.request import PendingRequest, Respond

HEADER_LENGTH = "inference-header-content-length"
DECOUPLED = "HTTP end point doesn't support models with decoupled transaction policy"


class HttpEncoder:
    """Encodes one request's response; `header_length` is there afterwards."""

    __slots__ = ("_binary_default", "_model", "_requested", "header_length")

    def __init__(
        self, model: ServedModel, requested: tuple[RequestedOutput, ...], binary_default: bool
    ) -> None:
        self._model = model
        self._requested = requested
        self._binary_default = binary_default
        self.header_length: int | None = None

    def of(self, model: ServedModel) -> HttpEncoder:
        """As Retargetable."""
        self._model = model
        return self

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """The body. Raises InvalidRequest when an output can't be what the client asked for."""
        chosen = chosen_outputs(self._model, request.plan, outputs)
        model = self._model
        response = InferResponse(
            model.name, str(model.version), request.id, tuple(chosen), request.response_parameters
        )
        body, self.header_length = encode_http_infer(
            response, self._requested, self._binary_default
        )
        return body


class HttpInference:
    """Answers inference requests over HTTP."""

    def __init__(self, inference: Inference, repository: ModelRepository, aside: Aside) -> None:
        self._inference = inference
        self._repository = repository
        self._aside = aside
        self._decoder = HttpInferDecoder()

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        """A request's way in: decode, bind to its model, queue.

        Raises InvalidRequest, Unsupported, NotFound, Unavailable, QueueFull, DeadlineExceeded.
        """
        # the model first: a client that misspelt it should not be told of its tensors
        if self._repository.get(name, version).config.decoupled:
            raise Unsupported(DECOUPLED)
        length = request.headers.get(HEADER_LENGTH.encode())
        header_length = None if length is None else length.decode("latin-1")
        if len(request.body) < LARGE_BYTES:
            decoded = self._decoder.decode(name, version, request.body, header_length)
        else:
            began_ns = time.monotonic_ns()
            decoded = await self._aside.run(
                self._decoder.decode, name, version, request.body, header_length
            )
            terms = from_now(terms, began_ns)
        header, buffers = self._raw(decoded) if decoded.raw else (decoded.header, decoded.buffers)
        bound = self._inference.bind(header, terms, decoded.id)
        encoder = HttpEncoder(bound.model, header.outputs, decoded.binary_data_output)
        received = len(request.body)
        return self._inference.submit(bound, decoded.id, buffers, encoder, respond, received, terms)

    def respond(self, request: HttpRequest, body: bytes, pending: PendingRequest) -> HttpResponse:
        """The response of a body that the request's encoder has made, compressed where the client asks for it."""
        encoder = unwrapped(pending.encode)
        assert isinstance(encoder, HttpEncoder)
        headers: list[tuple[str, str]] = []
        content_type = "application/json"
        if encoder.header_length is not None:
            content_type = "application/octet-stream"
            headers.append((HEADER_LENGTH, str(encoder.header_length)))
        return compressed(request, HttpResponse(body, 200, content_type, tuple(headers)))

    def _raw(self, decoded: DecodedHttpRequest) -> tuple[InferHeader, list[Buffer]]:
        """Header and buffers of a request that is nothing but the bytes of the model's only input."""
        header, (data,) = decoded.header, decoded.buffers
        model = self._repository.get(header.model_name, header.model_version)
        deduced = model.signature.raw_header(header.model_name, header.model_version, len(data))
        if deduced.inputs[0].datatype == "BYTES":
            # the body is the one element itself, without the length that BYTES have on the wire
            data = serialize_bytes([bytes(data)])
        return deduced, [data]


def compressed(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """The response, compressed where the client asks for it."""
    accepted = header(request.headers, b"accept-encoding")
    encoding = choose_encoding(accepted) if accepted else None
    if encoding is None:
        return response
    headers = (*response.headers, ("content-encoding", encoding))
    return structs.replace(response, body=compress(response.body, encoding), headers=headers)
