"""The body of an HTTP inference request → InferHeader, id and tensor bytes.

The body is JSON, or JSON followed by binary tensors (`Inference-Header-Content-Length` says where they begin), or, with
the length 0, nothing but the bytes of the model's only input. Clients repeat the JSON part word for word but for the
id, so each distinct one is parsed and checked once.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from penstock.errors import InvalidRequest
from penstock.gateway.http_header import ParsedHeader, parse_header
from penstock.tensors import count_bytes_elements
from penstock.types import Buffer, InferHeader

_LEADING_ID: Final = re.compile(rb'\{[ \n]*"id"[ \n]*:[ \n]*"([^"\\\x00-\x1f]*)"[ \n]*,')
"""An id where clients put it, and without escapes. The comma stays with the rest: no whole header begins with one."""


class DecodedHttpRequest(msgspec.Struct, frozen=True):
    """An inference request taken apart. Its buffers are views of the body received, in the order of `header.inputs`."""

    header: InferHeader
    """One object for all requests that differ only in id and tensor bytes, as long as it is cached."""
    id: str
    buffers: list[Buffer]
    binary_data_output: bool
    """Whether outputs are binary where the client does not say for each."""
    raw: bool = False
    """The body is just the bytes of the model's only input: `header.inputs` is empty, there is one buffer."""


class HttpInferDecoder:
    """Decodes HTTP inference requests. Remembers the headers of binary ones, within bounds."""

    def __init__(self, max_entries: int = 1024, max_header_bytes: int = 4096) -> None:
        self._max_entries: Final = max_entries
        self._max_header_bytes: Final = max_header_bytes
        self._cache: Final[dict[tuple[str, str, bytes], ParsedHeader]] = {}

    def decode(
        self, model_name: str, model_version: str, body: bytes, header_length: str | None
    ) -> DecodedHttpRequest:
        """Take a request's body apart.

        `header_length` is the value of the `Inference-Header-Content-Length` header, None where there is none.
        Inputs in shared memory have empty bytes. Raises InvalidRequest, naming what is wrong.
        """
        json_bytes = len(body)
        if header_length is not None:
            json_bytes = _json_bytes(header_length, len(body))
            if json_bytes == 0:
                return self._raw(model_name, model_version, body)
        request_id, rest_at = "", 0
        if found := _LEADING_ID.match(body, 0, json_bytes):
            request_id, rest_at = _text(found[1]), found.end() - 1
        header = self._parsed(model_name, model_version, body[:json_bytes], rest_at)
        return DecodedHttpRequest(
            header.infer_header,
            header.id or request_id,
            _buffers(header, memoryview(body)[json_bytes:]),
            header.binary_data_output,
        )

    def _parsed(self, name: str, version: str, json: bytes, rest_at: int) -> ParsedHeader:
        """The header but for its leading id, which ends before `rest_at` (0: it has none)."""
        key = (name, version, json[rest_at:])
        parsed = self._cache.get(key)
        if parsed is None:
            # Blanks for the id: what the parser says of positions stays true.
            text = b"{".ljust(rest_at + 1) + json[rest_at + 1 :] if rest_at else json
            parsed = parse_header(name, version, text)
            if parsed.repeatable and len(json) <= self._max_header_bytes:
                self._remember(key, parsed)
        return parsed

    def _raw(self, name: str, version: str, body: bytes) -> DecodedHttpRequest:
        key = (name, version, b"")
        parsed = self._cache.get(key)
        if parsed is None:
            parsed = ParsedHeader(InferHeader(name, version, ()), "", True)
            self._remember(key, parsed)
        return DecodedHttpRequest(parsed.infer_header, "", [memoryview(body)], True, raw=True)

    def _remember(self, key: tuple[str, str, bytes], parsed: ParsedHeader) -> None:
        if len(self._cache) >= self._max_entries:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = parsed


def _json_bytes(header_length: str, body_bytes: int) -> int:
    """The header's value as a number, checked against the body."""
    if not (header_length.isascii() and header_length.removeprefix("-").isdecimal()):
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be a number, got {header_length[:100]!r}"
        )
    # A number of more digits than this is out of range, and int() refuses thousands of them.
    length = int(header_length) if len(header_length) < 20 else -1
    if not 0 <= length <= body_bytes:
        raise InvalidRequest(
            f"inference header size should be in range (0, {body_bytes}),"
            f" got: {header_length[:100]}"
        )
    return length


def _text(request_id: bytes) -> str:
    try:
        return request_id.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the request's 'id' is not valid UTF-8: {error}") from error


def _buffers(header: ParsedHeader, binary: memoryview) -> list[Buffer]:
    """All inputs' bytes: views of what follows the JSON, and what came as JSON."""
    if len(binary) != header.binary_bytes:
        raise InvalidRequest(header.explain_size(len(binary)))
    buffers = [binary[part] if isinstance(part, slice) else part for part in header.parts]
    for index, name, count in header.strings:
        count_bytes_elements(buffers[index], count, name)
    return buffers
