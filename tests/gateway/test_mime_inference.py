"""Content types that say where the JSON ends."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.mime_inference import MimeInference
from penstock.types import NO_TERMS, CallTerms
from penstock.workers.request import PendingRequest, Respond

pytestmark = [pytest.mark.extension("sagemaker"), pytest.mark.extension("vertex_ai")]

BINARY = "application/vnd.sagemaker-triton.binary+json;json-header-size="
NOBODY: Any = None


class Inner:
    """An InferenceWire that keeps what it gets."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.response = HttpResponse(b"{}")

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        self.headers = request.headers
        return NOBODY  # type: ignore[no-any-return]

    def respond(self, request: HttpRequest, body: bytes, pending: PendingRequest) -> HttpResponse:
        return self.response


async def headers_of(**headers: str) -> dict[bytes, bytes]:
    inner = Inner()
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    request = HttpRequest("POST", given, b"")
    await MimeInference(inner, "sagemaker").submit("m", "", request, NOBODY, NO_TERMS)
    return inner.headers


async def test_the_size_becomes_the_protocols_header() -> None:
    headers = await headers_of(content_type=f"{BINARY}12", inference_header_content_length="7")
    assert headers[b"inference-header-content-length"] == b"12"


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", ""])
async def test_any_other_is_json(content_type: str) -> None:
    headers = await headers_of(content_type=content_type, inference_header_content_length="7")
    assert b"inference-header-content-length" not in headers


async def test_it_must_stand_first() -> None:
    with pytest.raises(InvalidRequest, match="expect MIME type for binary data starts with"):
        await headers_of(content_type=f"text/plain, {BINARY}12")


def test_answers() -> None:
    inner = Inner()
    wire = MimeInference(inner, "sagemaker")
    request = HttpRequest("POST", {}, b"")
    assert wire.respond(request, b"", NOBODY) == inner.response
    length = ("inference-header-content-length", "34")
    gzip = ("content-encoding", "gzip")
    inner.response = HttpResponse(b"x", 200, "application/octet-stream", (length, gzip))
    assert wire.respond(request, b"", NOBODY) == HttpResponse(b"x", 200, f"{BINARY}34", (gzip,))
