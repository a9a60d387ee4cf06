"""The gRPC services, free of transport: each RPC takes one message's bytes, or an iterator of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf.message import Message

from penstock.access.rules import PUBLIC, Rule, of, of_model
from penstock.access.session import AnySession
from penstock.errors import NotFound
from penstock.gateway.aside import LARGE_BYTES, Aside
from penstock.gateway.auditing import RPC_ACTIONS, Auditing, changes_something, details_of_rpc
from penstock.gateway.client_memory_api import CudaMemoryApi, SystemMemoryApi
from penstock.gateway.grpc_request import Decoded, GrpcInferDecoder
from penstock.gateway.grpc_response import PREFIX, GrpcEncoder
from penstock.gateway.infer_streams import InferStreams
from penstock.gateway.inference import Bound, Inference
from penstock.gateway.model_control import ModelControl
from penstock.gateway.reflection import ReflectionService
from penstock.gateway.rpc import Answer as RpcAnswer
from penstock.gateway.rpc import Rpc, Stream, Unary, parse
from penstock.gateway.server_state import SERVER_NAME, ServerState
from penstock.gateway.stream_intake import StreamIntake
from penstock.gateway.terms import from_now
from penstock.model_config import wire_shape
from penstock.protobuf import message_class
from penstock.repository.config_json import config_to_proto
from penstock.repository.served_model import ServedModel
from penstock.types import CallTerms
from penstock.verbs import Verb
from penstock.workers.request import PendingRequest, Respond, into

INFERENCE: Final = "/inference.GRPCInferenceService/"
HEALTH: Final = "/grpc.health.v1.Health/"
MODEL_INFER: Final = f"{INFERENCE}ModelInfer"
MODEL_STREAM_INFER: Final = f"{INFERENCE}ModelStreamInfer"

METADATA: Final = of_model(Verb.READ_METADATA, "name")
STATISTICS: Final = of_model(Verb.READ_STATISTICS, "name")

SERVER_SERVICES: Final = ("", "inference.GRPCInferenceService")
"""Names by which the server itself is asked for."""

# grpc.health.v1.HealthCheckResponse.ServingStatus
SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3


class GrpcService:
    """All RPCs by path but inference: `unary` and `streams` are what a front serves. Inference goes its own ways, with
    terms: `infer`, or `model_infer` for those who await its answer, and `infer_streams`."""

    def __init__(
        self,
        state: ServerState,
        inference: Inference,
        aside: Aside,
        *,
        framed: bool,
        auditing: Auditing | None = None,
    ) -> None:
        """`framed`: whether answers begin with gRPC's five-byte prefix."""
        self._auditing = auditing
        self._state = state
        self._repository = state.repository
        self._inference = inference
        self._framed = framed
        self._decoder = GrpcInferDecoder()
        self._aside = aside
        self.infer_streams = InferStreams(
            StreamIntake(inference, self._decoder, aside, framed=framed)
        )
        self._encoders: dict[int, tuple[ServedModel, GrpcEncoder]] = {}
        self._encoders_of = self._repository.generation
        rpcs = self._rpcs()
        self.rules: dict[str, Rule] = {
            MODEL_INFER: of(Verb.INFER),
            MODEL_STREAM_INFER: of(Verb.INFER),
            f"{HEALTH}Check": PUBLIC,
            f"{HEALTH}Watch": PUBLIC,
            **{INFERENCE + name: rule for name, _, rule, _ in rpcs},
        }
        """What each RPC asks of its caller. Inference is allowed or not by its model."""
        self.unary: dict[str, Unary] = {
            INFERENCE + name: self._message(request, rule, answer, name)
            for name, request, rule, answer in rpcs
        }
        self.unary[f"{HEALTH}Check"] = self._message(
            "grpc.health.v1.HealthCheckRequest", PUBLIC, self._check
        )
        reflection = ReflectionService(self._frame)
        self.streams: dict[str, Stream] = {f"{HEALTH}Watch": self._watch, **reflection.methods}
        self.rules |= dict.fromkeys(reflection.methods, of(Verb.READ_METADATA))

    def _rpcs(self) -> tuple[Rpc, ...]:
        """All of the protocol's own but inference."""
        return (
            ("ServerLive", "ServerLiveRequest", PUBLIC, self._server_live),
            ("ServerReady", "ServerReadyRequest", PUBLIC, self._server_ready),
            ("ModelReady", "ModelReadyRequest", METADATA, self._model_ready),
            (
                "ServerMetadata",
                "ServerMetadataRequest",
                of(Verb.READ_METADATA),
                self._server_metadata,
            ),
            ("ModelMetadata", "ModelMetadataRequest", METADATA, self._model_metadata),
            ("ModelConfig", "ModelConfigRequest", METADATA, self._model_config),
            ("ModelStatistics", "ModelStatisticsRequest", STATISTICS, self._model_statistics),
            *ModelControl(self._repository).rpcs(),
            (
                "TraceSetting",
                "TraceSettingRequest",
                of_model(Verb.CONFIGURE, "model_name"),
                self._trace_setting,
            ),
            ("LogSettings", "LogSettingsRequest", of(Verb.CONFIGURE), self._log_settings),
            *SystemMemoryApi(self._state.client_memory).rpcs(),
            *CudaMemoryApi(self._state.client_memory).rpcs(),
        )

    def infer(self, message: bytes, respond: Respond, terms: CallTerms) -> PendingRequest:
        """A request's way in: decode, bind to its model, submit. `respond` gets the answer's bytes, or its error.

        Raises InvalidRequest, Unsupported, NotFound, Unavailable, QueueFull, DeadlineExceeded.
        """
        return self.submit(self._decoder.decode(message), len(message), respond, terms)

    async def infer_large(
        self, message: bytes, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        """As `infer`, without keeping the event loop from others while the message is decoded."""
        began_ns = time.monotonic_ns()
        decoded = await self._aside.run(self._decoder.decode, message)
        return self.submit(decoded, len(message), respond, from_now(terms, began_ns))

    def submit(
        self, decoded: Decoded, received_bytes: int, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        """The second half of `infer`: bind and submit."""
        header, request_id, buffers = decoded
        bound = self._inference.bind(header, terms, request_id)
        encoder = self._encoder(bound)
        return self._inference.submit(
            bound, request_id, buffers, encoder, respond, received_bytes, terms
        )

    async def model_infer(self, message: bytes, terms: CallTerms) -> bytes:
        """ModelInfer as one call: the answer. Cancelled, it takes its request out of the queue."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if len(message) < LARGE_BYTES:
            request = self.infer(message, into(answer), terms)
        else:
            request = await self.infer_large(message, into(answer), terms)
        try:
            return await answer
        except asyncio.CancelledError:
            request.cancel()
            raise

    def _encoder(self, bound: Bound) -> GrpcEncoder:
        entry = self._encoders.get(id(bound.model))
        if entry is None:
            if self._encoders_of != bound.generation:
                self._encoders.clear()
                self._encoders_of = bound.generation
            entry = bound.model, GrpcEncoder(bound.model, framed=self._framed)
            self._encoders[id(bound.model)] = entry
        return entry[1]

    # ── one small function an RPC ───────────────────────────────────────────────────────────────────────────────────

    async def _server_live(self, _: Any, __: AnySession) -> Message:
        return _make("ServerLiveResponse", live=True)

    async def _server_ready(self, _: Any, __: AnySession) -> Message:
        return _make("ServerReadyResponse", ready=self._state.ready)

    async def _model_ready(self, request: Any, _: AnySession) -> Message:
        return _make(
            "ModelReadyResponse", ready=self._repository.is_ready(request.name, request.version)
        )

    async def _server_metadata(self, _: Any, __: AnySession) -> Message:
        return _make(
            "ServerMetadataResponse",
            name=SERVER_NAME,
            version=self._state.version,
            extensions=self._state.extensions,
        )

    async def _model_metadata(self, request: Any, _: AnySession) -> Message:
        model = self._repository.get(request.name, request.version)
        largest = model.config.max_batch_size
        tensor = message_class("inference.ModelMetadataResponse.TensorMetadata")
        return _make(
            "ModelMetadataResponse",
            name=model.name,
            versions=[str(version) for version in self._repository.versions(model.name)],
            platform=model.config.platform or model.config.backend,
            inputs=[
                tensor(name=t.name, datatype=t.datatype, shape=wire_shape(t, largest))
                for t in model.config.input
            ],
            outputs=[
                tensor(name=t.name, datatype=t.datatype, shape=wire_shape(t, largest))
                for t in model.config.output
            ],
        )

    async def _model_config(self, request: Any, _: AnySession) -> Message:
        model = self._repository.get(request.name, request.version)
        return _make("ModelConfigResponse", config=config_to_proto(model.described))

    async def _model_statistics(self, request: Any, session: AnySession) -> Message:
        response: Any = _make("ModelStatisticsResponse")
        for model in self._repository.matching(request.name, request.version):
            if session.may(Verb.READ_STATISTICS, model.name):
                model.statistics.fill_proto(response.model_stats.add())
        return response  # type: ignore[no-any-return]

    async def _trace_setting(self, request: Any, _: AnySession) -> Message:
        return await self._state.traces.answer(request)

    async def _log_settings(self, request: Any, _: AnySession) -> Message:
        return self._state.logs.answer(request)

    async def _check(self, request: Any, session: AnySession) -> Message:
        self._check_service(request.service, session)
        return self._health(request.service)

    async def _watch(
        self, requests: AsyncIterator[bytes], session: AnySession
    ) -> AsyncIterator[bytes]:
        """grpc.health.v1 Watch: the status now, and again whenever it changes, until the server drains."""
        message = await anext(requests, b"")
        request: Any = parse(message_class("grpc.health.v1.HealthCheckRequest"), message)
        self._check_service(request.service, session)
        told = None
        while True:
            # looked at first: a drain that begins while the client takes its message has a status yet to be told
            draining = self._state.draining.is_set()
            status = self._watched(request.service)
            if status != told:
                told = status
                yield self._frame(status)
            if draining:
                return
            async with self._state.changed:
                if self._watched(request.service) == told and not self._state.draining.is_set():
                    await self._state.changed.wait()

    def _check_service(self, service: str, session: AnySession) -> None:
        """Whether the server lives is for all to know; whether a model does is not."""
        if service not in SERVER_SERVICES:
            session.check(Verb.READ_METADATA, service)

    def _watched(self, service: str) -> Message:
        """As `_health`, but a service that is not known has a status too."""
        try:
            return self._health(service)
        except NotFound:
            return _health_response(SERVICE_UNKNOWN)

    def _health(self, service: str) -> Message:
        """`""` and the service's own name are the server; any other name is a model's."""
        if service in SERVER_SERVICES:
            return _health_response(SERVING if self._state.ready else NOT_SERVING)
        if not self._repository.knows(service):
            raise NotFound(f"unknown service '{service}'")
        return _health_response(SERVING if self._repository.is_ready(service) else NOT_SERVING)

    # ── bytes ↔ messages ────────────────────────────────────────────────────────────────────────────────────────────

    def _message(self, request: str, rule: Rule, answer: RpcAnswer, name: str = "") -> Unary:
        """An RPC on bytes out of one on messages."""
        cls = message_class(request if "." in request else f"inference.{request}")
        verb, field = rule.verb, rule.model
        auditing, action = self._auditing, RPC_ACTIONS.get(name, "")

        async def call(message: bytes, session: AnySession) -> bytes:
            parsed = parse(cls, message)
            if verb is not None and field:
                session.check(verb, getattr(parsed, field))
            if auditing is None or not action or not changes_something(parsed):
                return self._frame(await answer(parsed, session))
            details = await details_of_rpc(name, parsed, message)
            model = getattr(parsed, field) if field else ""
            async with auditing.action(action, session, model, details):
                return self._frame(await answer(parsed, session))

        return call

    def _frame(self, message: Message) -> bytes:
        data = message.SerializeToString()
        return PREFIX.pack(0, len(data)) + data if self._framed else data


def _health_response(status: int) -> Message:
    return message_class("grpc.health.v1.HealthCheckResponse")(status=status)


def _make(name: str, /, **fields: Any) -> Message:
    return message_class(f"inference.{name}")(**fields)
