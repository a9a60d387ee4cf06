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
from penstock.registry.webhook import DELIVERY, SIGNATURE, TIMESTAMP, check_webhook
from penstock.verbs import Verb

MAX_WEBHOOK_BYTES: Final = 1 << 20
NO_REGISTRY: Final = "this server takes no models from a registry"

Refused = Callable[[Unauthenticated], None]


class RegistryApi:
    """One a gateway, also of one without a registry."""

    def __init__(
        self,
        link: RegistryLink | None = None,
        webhook_secret: Callable[[], bytes] | None = None,
        refused: Refused = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`webhook_secret`: reads it; None: webhooks are refused. `refused`: hears of those whose signature is wrong.
        `clock`: seconds since 1970, for tests."""
        self._link: Final = link
        self._secret: Final = webhook_secret
        self._refused: Final = refused
        self._clock: Final = clock

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
        secret = await asyncio.to_thread(self._secret)
        headers = request.headers
        try:
            check_webhook(
                secret,
                signature=headers.get(SIGNATURE, b""),
                delivery=headers.get(DELIVERY, b""),
                timestamp=headers.get(TIMESTAMP, b""),
                body=request.body,
                now_s=self._clock(),
            )
        except Unauthenticated as error:
            self._refused(error)
            raise
        self._link.look()
        return json_response({})


def _shown(model: RegistryModel, session: AnySession) -> dict[str, Any]:
    """Why something is not there is for those to know who load it: it may tell of files."""
    shown: dict[str, Any] = msgspec.to_builtins(model)
    for name in ("settled", "revision", "gone"):
        del shown[name]
    if not session.may(Verb.LOAD, model.name):
        shown["problem"] = ""
    return shown
