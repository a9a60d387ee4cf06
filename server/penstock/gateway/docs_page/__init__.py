"""`/docs`: a page that shows `/openapi.json`, and sends requests to try. It needs nothing from other places."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Final

from penstock.errors import NotFound
from penstock.gateway import descriptions as described
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.route_table import PathParameters, Route

PAGE: Final = "index.html"
FILES: Final = {
    PAGE: "text/html; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
}
"""Name → content type."""

HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


def docs_routes() -> Iterator[Route]:
    """The page and its files, read now."""
    folder = resources.files(__name__)
    responses = {
        name: HttpResponse((folder / name).read_bytes(), 200, content_type, HEADERS)
        for name, content_type in FILES.items()
    }

    async def page(_: PathParameters, __: HttpRequest) -> HttpResponse:
        return responses[PAGE]

    async def file(parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        found = responses.get(parameters["file"])
        if found is None:
            raise NotFound(f"unknown route /docs/{parameters['file'][:200]}")
        return found

    yield Route("GET", "/docs", page, described.DOCS)
    yield Route("GET", "/docs/{file}", file, described.DOCS_FILE)
