"""GET /v2/audit: the audit log over HTTP, for those who may read it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl

from penstock.access.permissions import ANY
from penstock.access.session import AnySession
from penstock.audit.lines import Record
from penstock.audit.reading import Filter, as_dict, parse_outcome, parse_time, records
from penstock.audit_config import AuditSettings
from penstock.errors import ConfigError, InvalidRequest, NotFound, Unavailable
from penstock.gateway import descriptions as described
from penstock.gateway.http_types import HttpRequest, HttpResponse, json_response
from penstock.gateway.route_table import PathParameters, Route
from penstock.verbs import Verb

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100
_MAX_QUERY_BYTES: Final = 4096
_PARAMETERS: Final = ("tenant", "action", "outcome", "since", "limit")


class AuditApi:
    """One a gateway."""

    def __init__(self, settings: AuditSettings) -> None:
        self._settings = settings
        self._reading = asyncio.Semaphore(1)

    def routes(self) -> Iterator[Route]:
        """The route."""
        yield Route("GET", "/v2/audit", self._answer, described.AUDIT)

    async def _answer(self, _: PathParameters, request: HttpRequest) -> HttpResponse:
        folder = self._settings.folder
        if folder is None:
            raise NotFound("this server has no audit log: the setting audit.folder names none")
        wanted = filter_of(request.query)
        # of tenants of whom its reader may know nothing it is as if there were no records
        readable = _Readable(request.session)
        try:
            # one at a time: each may read through files of many megabytes
            async with self._reading:
                found = await asyncio.to_thread(records, folder, wanted, readable)
        except ConfigError:
            raise Unavailable("the audit log can't be read") from None
        last = found[-1].seq if found else wanted.since_seq
        return json_response({"records": [as_dict(record) for record in found], "last": last})


def filter_of(query: bytes) -> Filter:
    """What the query asks for. Raises InvalidRequest."""
    if len(query) > _MAX_QUERY_BYTES:
        raise InvalidRequest(f"the query is longer than {_MAX_QUERY_BYTES} bytes")
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    for name in given:
        if name not in _PARAMETERS:
            raise InvalidRequest(
                f"unknown parameter '{name[:80]}', expected {', '.join(_PARAMETERS)}"
            )
    since = given.get("since", "")
    is_number = since.isascii() and since.isdigit() and len(since) < 19
    return Filter(
        tenant=given.get("tenant", ""),
        action=given.get("action", ""),
        outcome=parse_outcome(given.get("outcome", "")),
        since_seq=int(since) if is_number else 0,
        since_time="" if is_number or not since else parse_time(since),
        limit=_limit(given.get("limit", "")),
    )


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidRequest(f"limit is '{text[:40]}', expected a number from 1 to {MAX_LIMIT}")


class _Readable:
    """Which records a session may read: those of tenants that it may read of; those of none, only if of all."""

    def __init__(self, session: AnySession) -> None:
        self._session = session
        self._known: dict[str, bool] = {}

    def __call__(self, record: Record) -> bool:
        tenant = record.tenant or ANY
        allowed = self._known.get(tenant)
        if allowed is None:
            allowed = self._known[tenant] = self._session.may_of(Verb.READ_AUDIT, tenant)
        return allowed
