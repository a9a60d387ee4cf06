"""Server reflection, asked with messages of our own pool: what grpcurl would see."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from penstock.access.session import OPEN
from penstock.errors import InvalidRequest
from penstock.gateway.reflection import ReflectionService
from penstock.protobuf import message_class

VERSIONS = ["v1", "v1alpha"]


def frame(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


async def ask(version: str, *requests: dict[str, Any] | bytes) -> list[Any]:
    """The answers to these requests on one stream."""
    package = f"grpc.reflection.{version}."
    request_class = message_class(f"{package}ServerReflectionRequest")
    response_class = message_class(f"{package}ServerReflectionResponse")

    async def messages() -> AsyncIterator[bytes]:
        for fields in requests:
            if isinstance(fields, bytes):
                yield fields
            else:
                yield request_class(**fields).SerializeToString()

    call = ReflectionService(frame).methods[f"/{package}ServerReflection/ServerReflectionInfo"]
    return [response_class.FromString(answer[5:]) async for answer in call(messages(), OPEN)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_services(version: str) -> None:
    (answer,) = await ask(version, {"list_services": "", "host": "h"})
    names = [service.name for service in answer.list_services_response.service]
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(names)
    assert f"grpc.reflection.{version}.ServerReflection" in names
    assert answer.valid_host == "h"
    assert answer.original_request.host == "h"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest",
        "inference.ModelInferRequest.id",
    ],
)
async def test_a_symbols_file_and_all_it_imports(version: str, symbol: str) -> None:
    (answer,) = await ask(version, {"file_containing_symbol": symbol})
    files = [
        FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert files[0].package == "inference"
    known = {file.name for file in files}
    assert all(name in known for file in files for name in file.dependency)
    (again,) = await ask(version, {"file_by_filename": files[0].name})
    assert again.file_descriptor_response == answer.file_descriptor_response


@pytest.mark.parametrize(
    ("request_fields", "text"),
    [
        ({"file_containing_symbol": "no.such.Thing"}, "symbol 'no.such.Thing' is not known"),
        ({"file_by_filename": "no.proto"}, "file 'no.proto' is not known"),
        ({"all_extension_numbers_of_type": "inference.ModelConfig"}, "no extensions are known"),
        ({}, "no extensions are known"),
    ],
)
async def test_an_error_does_not_end_the_stream(request_fields: dict[str, Any], text: str) -> None:
    answer, after = await ask("v1", request_fields, {"list_services": ""})
    assert (answer.error_response.error_code, answer.error_response.error_message) == (5, text)
    assert after.list_services_response.service


async def test_bytes_that_are_no_request() -> None:
    with pytest.raises(InvalidRequest, match="not a ServerReflectionRequest"):
        await ask("v1", b"\xff")
