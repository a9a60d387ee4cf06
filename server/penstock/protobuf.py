"""The protocol's message classes, in a descriptor pool of their own.

The default pool refuses two definitions of one name, and `tritonclient` has the same names: with a
private pool both live in one process. What is here is immutable once it is read, so it is cached.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstock.errors import InternalError, NotFound


@cache
def descriptor_set() -> FileDescriptorSet:
    """All .proto files, compiled; imports stand before those that import them."""
    path = files("penstock") / "descriptors.binpb"
    try:
        return FileDescriptorSet.FromString(path.read_bytes())
    except FileNotFoundError as error:
        raise InternalError(f"{path} is missing; `pip install` of Penstock compiles it") from error


@cache
def descriptor_pool() -> DescriptorPool:
    """The private pool that knows the protocol's files, and nothing else."""
    pool = DescriptorPool()
    for file in descriptor_set().file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message_class(full_name: str) -> type[Message]:
    """The class of a message: `message_class("inference.ModelInferRequest")`.

    Raises KeyError when there is no such message.
    """
    return GetMessageClass(descriptor_pool().FindMessageTypeByName(full_name))


def service_names() -> list[str]:
    """Full names of all services, sorted."""
    return sorted(
        f"{file.package}.{service.name}"
        for file in descriptor_set().file
        for service in file.service
    )


def file_descriptors_for_file(name: str) -> list[bytes]:
    """The serialized FileDescriptorProto of a file, then those of all it imports.

    Raises NotFound when there is no such file.
    """
    try:
        file = descriptor_pool().FindFileByName(name)
    except KeyError as error:
        raise NotFound(f"file {name!r} is not known") from error
    return [each.serialized_pb for each in _with_imports(file)]


def file_descriptors_for_symbol(name: str) -> list[bytes]:
    """The serialized FileDescriptorProto of the file that defines a name, then those it imports.

    `name` is the full name of a message, enum, field, service or method. Raises NotFound when
    nothing has it.
    """
    try:
        file = _file_of_symbol(name)
    except KeyError as error:
        raise NotFound(f"symbol {name!r} is not known") from error
    return [each.serialized_pb for each in _with_imports(file)]


def fields_of(descriptor: Any) -> dict[str, FieldDescriptor]:
    """Name → field, in the order of the .proto file, of a message type's descriptor.

    For `message.DESCRIPTOR` and `field.message_type`, whose declared types vary with the runtime.
    """
    return {field.name: field for field in descriptor.fields}


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field is a list or a map."""
    # Newer protobufs have `is_repeated`, and warn of `label`; older ones have only `label`.
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(getattr(field, "label") == FieldDescriptor.LABEL_REPEATED)  # noqa: B009


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map: protobuf's name for a list of key-value messages."""
    message = field.message_type
    return message is not None and message.GetOptions().map_entry


def _file_of_symbol(name: str) -> FileDescriptor:
    service, _, method = name.rpartition(".")
    # The pool finds a symbol of any kind but methods.
    if service in service_names():
        descriptor = descriptor_pool().FindServiceByName(service)
        return descriptor.methods_by_name[method].containing_service.file
    return descriptor_pool().FindFileContainingSymbol(name)


def _with_imports(file: FileDescriptor) -> list[FileDescriptor]:
    found = {file.name: file}
    waiting = [file]
    while waiting:
        for imported in waiting.pop().dependencies:
            if imported.name not in found:
                found[imported.name] = imported
                waiting.append(imported)
    return list(found.values())
