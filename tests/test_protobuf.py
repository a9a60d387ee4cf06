"""The private descriptor pool, beside tritonclient's in the default one."""

from __future__ import annotations

from typing import Any

import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from penstock import protobuf
from penstock.errors import NotFound

FILES = {
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
    "grpc_service.proto",
    "model_config.proto",
}


def names(serialized: list[bytes]) -> list[str]:
    return [FileDescriptorProto.FromString(each).name for each in serialized]


def stripped(descriptor: Any) -> FileDescriptorProto:
    """A file's definitions, without what does not change their meaning."""
    file = FileDescriptorProto.FromString(descriptor.serialized_pb)
    for service in file.service:
        for method in service.method:
            method.ClearField("options")
    for message in file.message_type:
        normalize(message)
    return file


def normalize(message: DescriptorProto) -> None:
    """Drop JSON names, which some compilers leave out, and sort what maps are made of."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        normalize(nested)
    nested_types = sorted(message.nested_type, key=lambda nested: nested.name)
    message.ClearField("nested_type")
    message.nested_type.extend(nested_types)


def field_numbers(name: str) -> dict[str, int]:
    fields = protobuf.fields_of(protobuf.message_class(name).DESCRIPTOR)
    return {key: field.number for key, field in fields.items()}


def test_all_files_are_there() -> None:
    assert {file.name for file in protobuf.descriptor_set().file} == FILES


@pytest.mark.parametrize(
    ("file", "theirs"),
    [
        ("grpc_service.proto", triton.service_pb2),
        ("model_config.proto", triton.model_config_pb2),
    ],
)
def test_definitions_are_those_of_tritonclient(file: str, theirs: Any) -> None:
    ours = stripped(protobuf.descriptor_pool().FindFileByName(file))
    its = stripped(theirs.DESCRIPTOR)
    assert list(ours.message_type) == list(its.message_type)
    assert list(ours.service) == list(its.service)
    assert list(ours.enum_type) == list(its.enum_type)


def test_pinned_field_numbers() -> None:
    assert field_numbers("inference.ModelInferRequest") == {
        "model_name": 1,
        "model_version": 2,
        "id": 3,
        "parameters": 4,
        "inputs": 5,
        "outputs": 6,
        "raw_input_contents": 7,
    }
    assert field_numbers("inference.ModelInferResponse")["raw_output_contents"] == 6
    assert field_numbers("inference.InferParameter")["uint64_param"] == 5
    assert field_numbers("inference.ModelConfig")["model_metrics"] == 26


def test_bytes_travel_between_both_pools() -> None:
    ours = protobuf.message_class("inference.ModelInferRequest")
    theirs: Any = getattr(triton.service_pb2, "ModelInferRequest")  # noqa: B009
    assert ours is not theirs
    request = theirs(model_name="m", raw_input_contents=[b"\0\1"])
    request.parameters["k"].uint64_param = 2**63
    copy = ours.FromString(request.SerializeToString())
    assert copy.raw_input_contents == [b"\0\1"]  # type: ignore[attr-defined]
    assert theirs.FromString(copy.SerializeToString()) == request


def test_message_classes_are_made_once() -> None:
    assert protobuf.message_class("inference.ModelConfig") is protobuf.message_class(
        "inference.ModelConfig"
    )
    with pytest.raises(KeyError):
        protobuf.message_class("inference.Nothing")


def test_service_names() -> None:
    assert protobuf.service_names() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]


@pytest.mark.parametrize(
    ("symbol", "files"),
    [
        ("inference.GRPCInferenceService", ["grpc_service.proto", "model_config.proto"]),
        ("inference.GRPCInferenceService.ModelInfer", ["grpc_service.proto", "model_config.proto"]),
        ("inference.ModelConfig", ["model_config.proto"]),
        ("inference.ModelConfig.name", ["model_config.proto"]),
        ("inference.DataType", ["model_config.proto"]),
        ("grpc.health.v1.Health.Watch", ["grpc/health/v1/health.proto"]),
    ],
)
def test_files_by_symbol(symbol: str, files: list[str]) -> None:
    assert names(protobuf.file_descriptors_for_symbol(symbol)) == files


@pytest.mark.parametrize(
    "symbol", ["", "inference", "inference.Nothing", "inference.GRPCInferenceService.Nothing"]
)
def test_unknown_symbols(symbol: str) -> None:
    with pytest.raises(NotFound, match="is not known"):
        protobuf.file_descriptors_for_symbol(symbol)


def test_files_by_name() -> None:
    found = protobuf.file_descriptors_for_file("grpc_service.proto")
    assert names(found) == ["grpc_service.proto", "model_config.proto"]
    with pytest.raises(NotFound, match=r"file 'x\.proto' is not known"):
        protobuf.file_descriptors_for_file("x.proto")
