"""The registry over HTTP: what of it is served, and the webhooks by which it says that something has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from penstock.access.session import AnySession
from penstock.errors import InvalidRequest, NotFound, Unauthenticated, Unsupported
from penstock.gateway import descriptions as described
from penstock.gateway.http_types import HttpRequest, HttpResponse, json_response
from penstock.gateway.route_table import PathParameters, Route
from penstock.registry.link import RegistryLink
from penstock.registry.messages import RegistryModel
from penstock.registry.webhook import (
    DELIVERY,
    SIGNATURE,
    TIMESTAMP,
    check_headers,
    check_webhook,
)
from penstock.secrets.secret import Secret
from penstock.verbs import Verb

MAX_WEBHOOK_BYTES: Final = 1 << 20
SECRET_S: Final = 1.0
"""How old the secret may be that a webhook is checked with: not each one that anybody sends has it read."""
RECORDED_PER_MINUTE: Final = 10
"""So many refused webhooks are recorded one by one: anybody may send them."""
NO_REGISTRY: Final = "this server takes no models from a registry"

Refused = Callable[[Unauthenticated, int], None]
"""Why, and how many it stands for."""


class Recorded:
    """Which refused webhooks are recorded. The others are counted with the next one that is."""

    def __init__(self) -> None:
        self._minute = -1
        self._recorded = 0
        self._left_out = 0

    def take(self, now_s: float) -> int:
        """How many a record of this one stands for; 0: it is not recorded."""
        minute = int(now_s // 60)
        if minute != self._minute:
            self._minute, self._recorded = minute, 0
        if self._recorded >= RECORDED_PER_MINUTE:
            self._left_out += 1
            return 0
        self._recorded += 1
        count, self._left_out = self._left_out + 1, 0
        return count


class RegistryApi:
    """One a gateway, also of one without a registry."""

    def __init__(
        self,
        link: RegistryLink | None = None,
        webhook_secret: Callable[[], Secret] | None = None,
        refused: Refused = lambda *_: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`webhook_secret`: reads it, which may block; None: webhooks are refused. `refused`: hears of those whose
        signature is wrong, of many of them only how many. `clock`: seconds since 1970, for tests."""
        self._link: Final = link
        self._secret: Final = webhook_secret
        self._refused: Final = refused
        self._clock: Final = clock
        self._recorded: Final = Recorded()
        self._read: asyncio.Future[Secret] | None = None
        self._read_at_s = 0.0

    def routes(self) -> Iterator[Route]:
        """The routes."""
        yield Route("GET", "/v2/registry", self._show, described.REGISTRY)
        yield Route("POST", "/v2/registry/webhook", self._webhook, described.REGISTRY_WEBHOOK)

    async def _show(self, _: PathParameters, request: HttpRequest) -> HttpResponse:
        if self._link is None:
            raise NotFound(NO_REGISTRY)
        state, session = self._link.state, request.session
        may_know_why = session.may(Verb.LOAD, "*")
        return json_response(
            {
                "uri": state.uri if may_know_why else "",
                "agent": self._link.connected,
                "reachable": state.counts.reachable,
                "last_contact": state.counts.last_contact_s or None,
                "problem": state.problem if may_know_why else "",
                "models": [
                    _shown(model, session)
                    for model in state.models
                    if session.may(Verb.READ_METADATA, model.name)
                ],
            }
        )

    async def _webhook(self, _: PathParameters, request: HttpRequest) -> HttpResponse:
        """Whatever has changed: the registry is asked what there is now, for a webhook may be old, or late."""
        if self._link is None:
            raise NotFound(NO_REGISTRY)
        if self._secret is None:
            raise Unsupported(
                "webhooks are not taken: the setting registry.webhook_secret names no secret"
            )
        if len(request.body) > MAX_WEBHOOK_BYTES:
            raise InvalidRequest(f"a webhook of over {MAX_WEBHOOK_BYTES} bytes")
        signed = {
            "signature": request.headers.get(SIGNATURE, b""),
            "delivery": request.headers.get(DELIVERY, b""),
            "timestamp": request.headers.get(TIMESTAMP, b""),
        }
        try:
            check_headers(**signed)
            secret = (await self._current(self._secret)).reveal()
            check_webhook(secret, **signed, body=request.body, now_s=self._clock())
        except Unauthenticated as error:
            if count := self._recorded.take(self._clock()):
                self._refused(error, count)
            raise
        self._link.look()
        return json_response({})

    async def _current(self, read: Callable[[], Secret]) -> Secret:
        """One thread at most reads it, however many webhooks come."""
        now_s = self._clock()
        if self._read is None or not 0 <= now_s - self._read_at_s < SECRET_S:
            self._read_at_s = now_s
            self._read = asyncio.ensure_future(asyncio.to_thread(read))
        return await asyncio.shield(self._read)


def _shown(model: RegistryModel, session: AnySession) -> dict[str, Any]:
    """Why something is not there is for those to know who load it: it may tell of files."""
    shown: dict[str, Any] = msgspec.to_builtins(model)
    for name in ("settled", "revision", "gone"):
        del shown[name]
    if not session.may(Verb.LOAD, model.name):
        shown["problem"] = ""
    return shown
