"""KServe's V1 protocol: `/v1/models`, and `:predict`, which is answered by the protocol's own inference."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from penstock.errors import InvalidRequest, NotFound, Unavailable, Unsupported
from penstock.gateway import descriptions as described
from penstock.gateway.aside import LARGE_BYTES, Aside
from penstock.gateway.http_infer import DECOUPLED, compressed
from penstock.gateway.http_response import MAX_JSON_BYTES
from penstock.gateway.http_types import HttpRequest, HttpResponse, InferCall, json_response
from penstock.gateway.inference import Inference
from penstock.gateway.json_tensors import BINARY_ONLY
from penstock.gateway.route_table import PathParameters, Route
from penstock.gateway.terms import from_now
from penstock.gateway.v1_request import B64, V1Request, decode_predict
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel
from penstock.tensors import as_array
from penstock.types import CallTerms, InferHeader, OutputTensor, TensorSpec
from penstock.verbs import Verb
from penstock.workers.request import PendingRequest, Respond

MAX_HEADERS: Final = 1024


class V1Encoder:
    """Encodes one request's answer."""

    __slots__ = ("_batched", "_is_row")

    def __init__(self, model: ServedModel, is_row: bool) -> None:
        self._batched = model.config.max_batch_size > 0
        self._is_row = is_row

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """The body. Raises InvalidRequest when an output is too large for JSON."""
        size_bytes = sum(len(output.data) for output in outputs)
        if size_bytes > MAX_JSON_BYTES:
            raise InvalidRequest(
                f"the outputs have {size_bytes} bytes, JSON may carry {MAX_JSON_BYTES}:"
                " ask for them over /v2, as binary"
            )
        arrays = {output.name: _readable(output) for output in outputs}
        answer = {"predictions": self._predictions({k: v.tolist() for k, v in arrays.items()})}
        if all(v.dtype.kind != "f" or np.isfinite(v).all() for v in arrays.values()):
            return msgspec.json.encode(answer)
        return json.dumps(answer, separators=(",", ":")).encode()

    def _predictions(self, values: Mapping[str, Any]) -> list[Any]:
        if len(values) == 1:
            (only,) = values.values()
            return [only] if self._is_row or not isinstance(only, list) else only
        if not self._batched or len({len(each) for each in values.values()}) != 1:
            return [values]
        rows = zip(*values.values(), strict=True)
        return [dict(zip(values, row, strict=True)) for row in rows]


def _readable(output: OutputTensor) -> np.ndarray[Any, Any]:
    """The output as an array whose elements JSON can hold."""
    array = as_array(output.datatype, output.shape, output.data)
    if output.datatype in BINARY_ONLY:
        return array.astype(np.float32)
    if output.datatype == "BYTES":
        texts = np.empty(array.size, np.object_)
        texts[:] = [_text(element) for element in array.ravel().tolist()]
        return texts.reshape(array.shape)
    return array


def _text(element: bytes) -> str | dict[str, str]:
    """As TensorFlow Serving has it, where it is no text."""
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {B64: base64.b64encode(element).decode()}


class V1Inference:
    """Answers predictions."""

    def __init__(self, inference: Inference, repository: ModelRepository, aside: Aside) -> None:
        self._inference = inference
        self._repository = repository
        self._aside = aside
        self._headers: dict[tuple[str, str, tuple[TensorSpec, ...]], InferHeader] = {}

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        """A prediction's way in: decode, bind to its model, queue. Raises as HttpInference's."""
        model = self._model(name, version)
        if model.config.decoupled:
            raise Unsupported(DECOUPLED)
        received = len(request.body)
        if received < LARGE_BYTES:
            decoded = decode_predict(request.body, model.config)
        else:
            began_ns = time.monotonic_ns()
            decoded = await self._aside.run(decode_predict, request.body, model.config)
            terms = from_now(terms, began_ns)
        bound = self._inference.bind(self._header(name, version, decoded), terms)
        encoder = V1Encoder(bound.model, decoded.is_row)
        return self._inference.submit(bound, "", decoded.buffers, encoder, respond, received, terms)

    def respond(self, request: HttpRequest, body: bytes, pending: PendingRequest) -> HttpResponse:
        """The response of what the encoder made."""
        return compressed(request, HttpResponse(body))

    def routes(self) -> Iterator[Route]:
        """All of them."""
        model = "/v1/models/{model}"

        async def models(_: PathParameters, request: HttpRequest) -> HttpResponse:
            may = request.session.may
            names = sorted(
                {m.name for m in self._repository.served() if may(Verb.READ_METADATA, m.name)}
            )
            return json_response({"models": names})

        async def ready(parameters: PathParameters, _: HttpRequest) -> HttpResponse:
            name = parameters["model"]
            if not self._model(name, "").ready:
                raise _not_ready(name)
            return json_response({"name": name, "ready": True})

        async def predict(parameters: PathParameters, _: HttpRequest) -> InferCall:
            return InferCall(self, parameters["model"], parameters["version"])

        yield Route("GET", "/v1/models", models, described.V1_MODELS)
        versions = f"{model}[/versions/{{version}}]:predict"
        yield Route("POST", versions, predict, described.V1_PREDICT)
        yield Route("POST", f"{model}:explain", _explain, described.V1_EXPLAIN)
        yield Route("GET", model, ready, described.V1_READY)

    def _model(self, name: str, version: str) -> ServedModel:
        """Raises what `ModelRepository.get` does, in KServe's words."""
        try:
            return self._repository.get(name, version)
        except Unavailable as error:
            raise _not_ready(name) from error
        except NotFound as error:
            if version:
                raise
            if self._repository.knows(name):
                raise _not_ready(name) from error
            raise NotFound(f"Model with name {name} does not exist.") from error

    def _header(self, name: str, version: str, decoded: V1Request) -> InferHeader:
        """One for all requests that differ in their values only: what is bound to it is remembered."""
        key = (name, version, decoded.specs)
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= MAX_HEADERS:
                self._headers.clear()
            header = self._headers[key] = InferHeader(name, version, decoded.specs)
        return header


def _not_ready(name: str) -> Unavailable:
    return Unavailable(f"Model with name {name} is not ready.")


async def _explain(_: PathParameters, __: HttpRequest) -> HttpResponse:
    raise Unsupported("explanations are not supported")
