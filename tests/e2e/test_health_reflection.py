"""grpc.health.v1 and server reflection, as generic tools use them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from grpc_calls import call, failure
from penstock.protobuf import message_class
from served import Served

pytestmark = pytest.mark.e2e

HEALTH = "/grpc.health.v1.Health/"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def health(service: str) -> bytes:
    """A HealthCheckRequest."""
    request = message_class("grpc.health.v1.HealthCheckRequest")
    return request(service=service).SerializeToString()


def status(answer: bytes) -> int:
    """Of a HealthCheckResponse."""
    response: Any = message_class("grpc.health.v1.HealthCheckResponse").FromString(answer)
    number: int = response.status
    return number


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "puppet"])
def test_check(channel: grpc.Channel, service: str) -> None:
    assert status(call(channel, f"{HEALTH}Check", health(service))) == SERVING


def test_check_of_what_is_not_there(channel: grpc.Channel) -> None:
    assert status(call(channel, f"{HEALTH}Check", health("broken_init"))) == NOT_SERVING
    assert failure(channel, f"{HEALTH}Check", health("nobody"))[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("service", "expected"),
    [("", SERVING), ("broken_init", NOT_SERVING), ("nobody", SERVICE_UNKNOWN)],
)
def test_watch_tells_the_status_at_once(channel: grpc.Channel, service: str, expected: int) -> None:
    watch = channel.unary_stream(f"{HEALTH}Watch")(health(service), timeout=20)
    assert status(next(watch)) == expected
    watch.cancel()


def test_watch_tells_of_the_end(front: str, add_sub: Any) -> None:
    served: Served = add_sub(front)
    with grpc.insecure_channel(served.grpc) as channel:
        watch = channel.unary_stream(f"{HEALTH}Watch")(health(""), timeout=30)
        assert status(next(watch)) == SERVING
        served.process.terminate()
        assert status(next(watch)) == NOT_SERVING
        assert list(watch) == []
    assert served.process.wait(30) == 0


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_client_that_knows_nothing_can_call(channel: grpc.Channel, version: str) -> None:
    """What grpcurl does: list services, fetch their files, build messages from these, call."""
    reflection = Reflection(channel, version)
    assert reflection.services() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    pool = DescriptorPool()
    for file in reflection.files("inference.GRPCInferenceService"):
        pool.Add(FileDescriptorProto.FromString(file))
    service: Any = pool.FindServiceByName("inference.GRPCInferenceService")
    method = service.methods_by_name["ModelReady"]
    request = GetMessageClass(method.input_type)(name="puppet")
    answer = call(channel, "ModelReady", request.SerializeToString())
    response: Any = GetMessageClass(method.output_type).FromString(answer)
    assert response.ready


def test_reflection_of_the_unknown(channel: grpc.Channel) -> None:
    response = Reflection(channel, "v1").ask(file_containing_symbol="no.such.Thing")
    assert response.error_response.error_code == 5
    assert "no.such.Thing" in response.error_response.error_message


class Reflection:
    """A hand-made client of server reflection."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self._package = f"grpc.reflection.{version}"
        self._call = channel.stream_stream(
            f"/{self._package}.ServerReflection/ServerReflectionInfo"
        )

    def ask(self, **question: str) -> Any:
        """The one answer to a question."""
        request = message_class(f"{self._package}.ServerReflectionRequest")(**question)
        (answer,) = self._call(iter([request.SerializeToString()]), timeout=20)
        return message_class(f"{self._package}.ServerReflectionResponse").FromString(answer)

    def services(self) -> list[str]:
        """Names of all services."""
        response = self.ask(list_services="*")
        return [service.name for service in response.list_services_response.service]

    def files(self, symbol: str) -> Iterator[bytes]:
        """The file that defines the symbol and all that it needs, those first that others need."""
        response = self.ask(file_containing_symbol=symbol)
        yield from reversed(response.file_descriptor_response.file_descriptor_proto)


def test_reflection_answers_while_the_stream_is_open(channel: grpc.Channel) -> None:
    """Answers come as the questions do: a front that waits for the end of the stream would hang here."""
    request = message_class("grpc.reflection.v1.ServerReflectionRequest")
    question = request(list_services="*").SerializeToString()
    answered: queue.Queue[bytes] = queue.Queue()

    def questions() -> Iterator[bytes]:
        yield question
        answered.get(timeout=20)
        yield question

    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    count = 0
    for answer in channel.stream_stream(path)(questions(), timeout=20):
        answered.put(answer)
        count += 1
    assert count == 2
