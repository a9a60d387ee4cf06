"""The one table: error → (HTTP status, gRPC code, whether clients may read its text)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Final

from penstock import errors
from penstock.gateway.client_text import told
from penstock.wording import shortened


class GrpcCode(IntEnum):
    """The status codes of gRPC that Penstock uses."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """How an error looks on both wires."""

    http: HTTPStatus
    grpc: GrpcCode
    text_shown: bool = True


TABLE: Final[dict[type[errors.PenstockError], Status]] = {
    errors.PenstockError: Status(HTTPStatus.INTERNAL_SERVER_ERROR, GrpcCode.INTERNAL, False),
    errors.InvalidRequest: Status(HTTPStatus.BAD_REQUEST, GrpcCode.INVALID_ARGUMENT),
    errors.PayloadTooLarge: Status(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, GrpcCode.RESOURCE_EXHAUSTED
    ),
    errors.BodyTooSlow: Status(HTTPStatus.REQUEST_TIMEOUT, GrpcCode.DEADLINE_EXCEEDED),
    errors.AlreadyExists: Status(HTTPStatus.BAD_REQUEST, GrpcCode.ALREADY_EXISTS),
    errors.Conflict: Status(HTTPStatus.CONFLICT, GrpcCode.ALREADY_EXISTS),
    errors.Unauthenticated: Status(HTTPStatus.UNAUTHORIZED, GrpcCode.UNAUTHENTICATED),
    errors.Forbidden: Status(HTTPStatus.FORBIDDEN, GrpcCode.PERMISSION_DENIED),
    errors.NotFound: Status(HTTPStatus.NOT_FOUND, GrpcCode.NOT_FOUND),
    errors.Unsupported: Status(HTTPStatus.NOT_IMPLEMENTED, GrpcCode.UNIMPLEMENTED),
    errors.Unavailable: Status(HTTPStatus.SERVICE_UNAVAILABLE, GrpcCode.UNAVAILABLE),
    errors.QuotaExceeded: Status(HTTPStatus.TOO_MANY_REQUESTS, GrpcCode.RESOURCE_EXHAUSTED),
    errors.DeadlineExceeded: Status(HTTPStatus.GATEWAY_TIMEOUT, GrpcCode.DEADLINE_EXCEEDED),
    errors.ModelFailed: Status(HTTPStatus.INTERNAL_SERVER_ERROR, GrpcCode.INTERNAL),
    errors.UnknownError: Status(HTTPStatus.BAD_REQUEST, GrpcCode.UNKNOWN),
    errors.Cancelled: Status(HTTPStatus.BAD_REQUEST, GrpcCode.CANCELLED),
    errors.LoadFailed: Status(HTTPStatus.BAD_REQUEST, GrpcCode.INVALID_ARGUMENT),
    errors.ConfigError: Status(HTTPStatus.BAD_REQUEST, GrpcCode.INVALID_ARGUMENT),
}

MAX_TEXT: Final = 4000
"""Characters that clients are told of an error."""
MAX_HEADER_BYTES: Final = 6000
"""Of 8 KiB that clients of gRPC take for all headers together."""
MOST_BYTES: Final = 12
"""Of a character in a header of gRPC."""
PLAIN: Final = frozenset(map(chr, range(0x20, 0x7F))) - {"%"}
HIDDEN_TEXT: Final = "internal error; the server's log has more"


def status_of(error: Exception) -> Status:
    """The status of the error's own class, or of the nearest one it derives from."""
    for cls in type(error).__mro__:
        if status := TABLE.get(cls):
            return status
    return TABLE[errors.PenstockError]


def text_of(error: Exception) -> str:
    """What a client may read of the error."""
    if not status_of(error).text_shown:
        return HIDDEN_TEXT
    foreign = isinstance(error, errors.PenstockError) and error.foreign
    # it may quote what a client has sent, however long
    text = shortened(str(error), MAX_TEXT)
    return _for_a_header(told(text) if foreign else text)


def _for_a_header(text: str) -> str:
    """In gRPC the text is a header, which has three bytes for each one that is not printable ASCII; of larger ones a
    client tells nothing but that they are too large."""
    if len(text) <= MAX_HEADER_BYTES // MOST_BYTES:
        return text
    cut, characters = text, len(text)
    while (size := _header_bytes(cut)) > MAX_HEADER_BYTES:
        characters = min(characters - 1, characters * MAX_HEADER_BYTES // size)
        cut = shortened(text, characters)
    return cut


def _header_bytes(text: str) -> int:
    plain = sum(map(PLAIN.__contains__, text))
    return plain + 3 * (len(text.encode()) - plain)
