"""A ModelStreamInfer call in process: the test is its client and its models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from grpc_calls import infer_request, pb
from penstock.errors import NotFound, PenstockError
from penstock.gateway.aside import Aside
from penstock.gateway.grpc_request import GrpcInferDecoder
from penstock.gateway.infer_stream import InferStream
from penstock.gateway.infer_streams import InferStreams
from penstock.gateway.stream_intake import StreamIntake
from penstock.gateway.stream_terms import StreamTerms
from penstock.gateway.terms import TermsReader
from penstock.model_config import ModelConfig, TransactionPolicy
from penstock.types import CallTerms, InferHeader, OutputTensor, Parameter, TraceSwitch
from penstock.workers.request import Part, PendingRequest, RequestPlan

Y = np.array([[1.0, 2.0]], np.float32)


class FakeInference:
    """An Inference whose requests the test answers. Models whose names begin with `many` are decoupled."""

    def __init__(self) -> None:
        self.requests: list[PendingRequest] = []
        self.terms: list[CallTerms] = []
        self.cancelled: list[str] = []
        self.refusal: PenstockError | None = None
        self._models: dict[str, Any] = {}
        self._arrived = asyncio.Event()

    def bind(self, header: InferHeader, session: object, request_id: str = "") -> Any:
        name = header.model_name
        if name == "none":
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        policy = TransactionPolicy(decoupled=name.startswith("many"))
        config = ModelConfig(name=name, model_transaction_policy=policy)
        model = SimpleNamespace(name=name, version=3, config=config, labels={})
        return SimpleNamespace(
            header=header, model=self._models.setdefault(name, model), generation=1
        )

    def submit(
        self,
        bound: Any,
        request_id: str,
        buffers: Sequence[Any],
        encode: Any,
        respond: Any,
        received_bytes: int,
        terms: CallTerms,
        sink: Any = None,
    ) -> PendingRequest:
        if self.refusal is not None:
            raise self.refusal
        plan = RequestPlan(
            1, (), (), (), (), (), None, (), {}, parameters=dict(bound.header.parameters)
        )
        request = PendingRequest(
            plan, request_id, buffers, encode, respond, time.monotonic_ns(), self, received_bytes
        )
        request.sink = sink
        self.requests.append(request)
        self.terms.append(terms)
        self._arrived.set()
        return request

    async def submitted(self, count: int) -> None:
        """Until so many requests are."""
        while len(self.requests) < count:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 60)

    def cancel(self, request: PendingRequest) -> None:
        if not request.done:
            self.cancelled.append(request.id)
            request.finish(PenstockError("cancelled"))

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def named(self, request_id: str) -> PendingRequest:
        """The request of that id."""
        (request,) = [each for each in self.requests if each.id == request_id]
        return request

    def answer(self, *ids: str) -> None:
        """Y to each of them."""
        for each in ids:
            request = self.named(each)
            request.finish(request.encode(request, outputs()))

    def part(
        self,
        request_id: str,
        response: list[OutputTensor] | PenstockError | None,
        *,
        final: bool = False,
        parameters: Mapping[str, Parameter] = {},
        taken: Any = lambda: None,
    ) -> None:
        """A decoupled model's response."""
        request = self.named(request_id)
        assert request.sink is not None
        request.response_parameters = parameters
        request.sink.part(request, Part(response, parameters, final, taken))
        if final:
            request.finish(b"")


class StreamBench:
    """A stream, its client's end of both directions, and the models."""

    def __init__(self, headers: Mapping[bytes, bytes] = {}, timeout_us: int | None = None) -> None:
        self.inference = FakeInference()
        self.aside = Aside()
        intake = StreamIntake(
            self.inference,  # type: ignore[arg-type]
            GrpcInferDecoder(),
            self.aside,
            framed=False,
        )
        self.streams = InferStreams(intake)
        self.switch = TraceSwitch()
        reader = TermsReader(switch=self.switch)
        terms = StreamTerms(CallTerms(timeout_us, "blue"), headers, reader)
        self.stream: InferStream = self.streams.open(terms)
        self._messages: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.read = 0
        """Messages that the stream asked for."""
        self.reader = asyncio.get_running_loop().create_task(self.stream.read(self._feed()))

    async def _feed(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            self.read += 1
            yield message

    def send(self, request_id: str, model: str = "one", **changes: Any) -> None:
        """A request."""
        self.send_bytes(infer_request(model, id=request_id, **changes).SerializeToString())

    def send_bytes(self, message: bytes | BaseException | None) -> None:
        """Whatever message; None: the client has no more, an error: reading fails."""
        self._messages.put_nowait(message)

    async def receive(self) -> list[Any]:
        """All responses that are there, as messages."""
        found = []
        while len(self.stream.outbox):
            batch = await self.stream.outbox.next(1 << 30)
            found += [pb.ModelStreamInferResponse.FromString(each) for each in batch]
            self.take_all()
        return found

    def take_all(self) -> None:
        """The transport has what it was given."""
        sent, self.stream.outbox._sending = self.stream.outbox._sending, []
        self.stream.outbox._release(sent)

    async def rest(self) -> list[Any]:
        """All responses until the stream ends."""
        found = []
        while batch := await self.stream.outbox.next(1 << 30):
            found += [pb.ModelStreamInferResponse.FromString(each) for each in batch]
        return found

    def close(self) -> None:
        self.stream.cancel()
        self.reader.cancel()
        self.aside.close()


def outputs(array: Any = Y) -> list[OutputTensor]:
    """Y."""
    return [OutputTensor("Y", "FP32", array.shape, array.tobytes())]


def ids(responses: list[Any]) -> list[str]:
    """Of which requests they are."""
    return [each.infer_response.id for each in responses]


def finals(responses: list[Any]) -> list[bool]:
    """What each says of whether it is the last one of its request."""
    return [
        each.infer_response.parameters["triton_final_response"].bool_param for each in responses
    ]


def errors(responses: list[Any]) -> list[str]:
    """Their error messages."""
    return [each.error_message for each in responses]
