"""Inference whose content type says where the JSON ends, as clients of cloud platforms send it: no header of their own
gets through to the server."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from penstock.errors import InvalidRequest
from penstock.gateway.http_infer import HEADER_LENGTH
from penstock.gateway.http_types import HttpRequest, HttpResponse, InferenceWire
from penstock.types import CallTerms
from penstock.workers.request import PendingRequest, Respond

_HEADER_LENGTH: Final = HEADER_LENGTH.encode()
_CONTENT_TYPE: Final = b"content-type"


class MimeInference:
    """The protocol's own inference, but for content types."""

    def __init__(self, inner: InferenceWire, platform: str) -> None:
        """`platform` as Triton names it: `sagemaker`, `vertex-ai`."""
        self._inner = inner
        self._binary = f"application/vnd.{platform}-triton.binary+json;json-header-size="

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        """As HttpInference's."""
        headers = dict(request.headers)
        headers.pop(_HEADER_LENGTH, None)
        size = self._header_size(headers.get(_CONTENT_TYPE, b"").decode("latin-1"))
        if size is not None:
            headers[_HEADER_LENGTH] = size.encode("latin-1")
        plain = structs.replace(request, headers=headers)
        return await self._inner.submit(name, version, plain, respond, terms)

    def respond(self, request: HttpRequest, body: bytes, pending: PendingRequest) -> HttpResponse:
        """As HttpInference's."""
        response = self._inner.respond(request, body, pending)
        others = tuple(pair for pair in response.headers if pair[0] != HEADER_LENGTH)
        if len(others) == len(response.headers):
            return response
        size = dict(response.headers)[HEADER_LENGTH]
        return structs.replace(response, content_type=self._binary + size, headers=others)

    def _header_size(self, content_type: str) -> str | None:
        """None: the body is all JSON."""
        before, found, size = content_type.partition(self._binary)
        if not found:
            return None
        if before:
            raise InvalidRequest(
                f"expect MIME type for binary data starts with '{self._binary}',"
                f" got: {content_type[:200]}"
            )
        return size.strip()
