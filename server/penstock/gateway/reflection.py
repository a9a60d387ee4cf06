"""gRPC server reflection, v1 and v1alpha: clients such as grpcurl learn the services from the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from penstock import protobuf
from penstock.access.session import AnySession
from penstock.errors import NotFound
from penstock.gateway.rpc import Stream, parse
from penstock.gateway.status import GrpcCode, text_of


class ReflectionService:
    """https://github.com/grpc/grpc/blob/master/doc/server-reflection.md"""

    def __init__(self, frame: Callable[[Message], bytes]) -> None:
        self._frame = frame
        self.methods: dict[str, Stream] = {
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": self._method(
                version
            )
            for version in ("v1", "v1alpha")
        }

    def _method(self, version: str) -> Stream:
        package = f"grpc.reflection.{version}"
        request_class = protobuf.message_class(f"{package}.ServerReflectionRequest")
        response_class = protobuf.message_class(f"{package}.ServerReflectionResponse")

        async def info(requests: AsyncIterator[bytes], _: AnySession) -> AsyncIterator[bytes]:
            async for data in requests:
                request: Any = parse(request_class, data)
                response: Any = response_class(valid_host=request.host, original_request=request)
                _answer(request, response)
                yield self._frame(response)

        return info


def _answer(request: Any, response: Any) -> None:
    kind = request.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in protobuf.service_names():
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            files = protobuf.file_descriptors_for_file(request.file_by_filename)
            response.file_descriptor_response.file_descriptor_proto.extend(files)
        elif kind == "file_containing_symbol":
            files = protobuf.file_descriptors_for_symbol(request.file_containing_symbol)
            response.file_descriptor_response.file_descriptor_proto.extend(files)
        else:
            # our contract is proto3: it has no extensions
            raise NotFound("no extensions are known")
    except NotFound as error:
        response.error_response.error_code = GrpcCode.NOT_FOUND
        response.error_response.error_message = text_of(error)
