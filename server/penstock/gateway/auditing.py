"""What of the gateway's doings is recorded in the audit log: refusals, and what is done to the server itself."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from hashlib import sha256
from secrets import token_hex
from typing import Any, Final

import msgspec

from penstock.access.principal import Principal
from penstock.access.session import AnySession
from penstock.audit.event import AuditEvent, Outcome
from penstock.audit.lines import timestamp
from penstock.audit.log import AuditLog
from penstock.errors import Forbidden, PenstockError, QuotaExceeded, Unauthenticated, Unavailable
from penstock.gateway.asgi import App, Receive, Scope, Send
from penstock.types import CallSession
from penstock.workers.supervisor_messages import TlsState

log = logging.getLogger(__name__)

RPC_ACTIONS: Final[Mapping[str, str]] = {
    "RepositoryModelLoad": "model.load",
    "RepositoryModelUnload": "model.unload",
    "TraceSetting": "trace.change",
    "LogSettings": "log.change",
}
"""RPCs that do something to the server, and what that is called. Of those with settings only calls that give some."""

CALL: Final[ContextVar[Any]] = ContextVar("penstock_call")
"""The call that is being answered: an ASGI scope, or a path with what grpc.aio knows of the call. Only where there is
an audit log."""

_REFUSALS: Final[Mapping[type[PenstockError], str]] = {
    Unauthenticated: "authenticate",
    Forbidden: "authorize",
    QuotaExceeded: "quota",
}
_SETTING: Final = re.compile(r"(log|trace)_[a-z_]{1,32}")
_MODEL: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID: Final = b"x-request-id"
_SMALL_BYTES: Final = 64 << 10


class Action:
    """What is being done."""

    problem = ""
    """Why it has failed, where that is answered rather than raised."""


class Auditing:
    """One a gateway that has an audit log."""

    def __init__(self, audit_log: AuditLog) -> None:
        self.log: Final = audit_log
        self._refusals: Final = audit_log.settings.refusals

    def refused(
        self,
        principal: Principal | None,
        error: PenstockError,
        verb: str,
        model: str,
        count: int = 1,
    ) -> None:
        """A request is refused, or so many. Raises Unavailable where that can't be recorded and has to be."""
        if not self._refusals:
            return
        action = next((name for cls, name in _REFUSALS.items() if isinstance(error, cls)), "refuse")
        self.log.record(
            AuditEvent(
                action=action,
                outcome="refused",
                principal=principal.id if principal else "",
                tenant=principal.tenant if principal else "",
                model=model,
                reason=error.reason if isinstance(error, Unauthenticated) else str(error),
                request_id=_request_id(),
                client=client_of_call(),
                details=({"verb": str(verb)} if verb else {})
                | ({"count": str(count)} if count > 1 else {})
                | _route(),
            )
        )

    def certificates(self, before: TlsState, now: TlsState) -> None:
        """The supervisor has taken other certificates, or refused those that it was given."""
        until = timestamp(int(now.certificate_expires_at) * 1_000_000_000)
        ends: tuple[tuple[int, Outcome], ...] = (
            (now.rotations - before.rotations, "done"),
            (now.refused - before.refused, "refused"),
        )
        for count, outcome in ends:
            if count > 0:
                details = {"count": str(count), "certificate_until": until}
                self._end(AuditEvent(action="tls.rotate", outcome=outcome, details=details))

    @asynccontextmanager
    async def action(
        self,
        name: str,
        session: AnySession | CallSession | None,
        model: str = "",
        details: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Action]:
        """Around what is done to the server: that it will be done is on the disk before it is, and how it ended before
        that is answered. Raises Unavailable, and then it isn't done, where that has to be recorded and can't be.
        """
        event = self._event(name, "allowed", session, model, details or {})
        await self.log.durable(self.log.record(event))
        about = Action()
        try:
            yield about
        except asyncio.CancelledError:
            self._end(msgspec.structs.replace(event, outcome="failed", reason="Cancelled"))
            raise
        except BaseException as error:
            # by its kind alone: the text may quote what the request has given
            failed = msgspec.structs.replace(event, outcome="failed", reason=type(error).__name__)
            await self._ended(failed)
            raise
        outcome: Outcome = "failed" if about.problem else "done"
        await self._ended(msgspec.structs.replace(event, outcome=outcome, reason=about.problem))

    def _event(
        self,
        name: str,
        outcome: Outcome,
        session: AnySession | CallSession | None,
        model: str,
        details: Mapping[str, str],
    ) -> AuditEvent:
        principal = principal_of(session)
        return AuditEvent(
            action=name,
            outcome=outcome,
            principal=principal.id if principal else "",
            tenant=principal.tenant if principal else "",
            model=model,
            request_id=_request_id() or token_hex(8),
            client=client_of_call(),
            details=details,
        )

    async def _ended(self, event: AuditEvent) -> None:
        """It is done, and can't be taken back where that can't be recorded; that it would be is in the log."""
        try:
            await self.log.durable(self.log.record(event))
        except Unavailable as error:
            log.warning("%s is %s, which can't be recorded: %s", event.action, event.outcome, error)

    def _end(self, event: AuditEvent) -> None:
        try:
            self.log.record(event)
        except Unavailable as error:
            log.warning("%s is %s, which can't be recorded: %s", event.action, event.outcome, error)


def principal_of(session: AnySession | CallSession | None) -> Principal | None:
    """Whose it is; None where that is not asked."""
    return getattr(session, "principal", None)


async def details_of_http(method: str, body: bytes) -> dict[str, str]:
    """What a request is told by: never its content, which may be anything."""
    details = {"protocol": "HTTP", "method": method}
    if body:
        details["body_sha256"] = await _digest(body)
    if 0 < len(body) <= _SMALL_BYTES:
        try:
            given = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return details
        details |= _settings(given)
        name = given.get("model_name")
        if isinstance(name, str) and _MODEL.fullmatch(name):
            details["model_name"] = name
    return details


async def details_of_rpc(name: str, request: Any, message: bytes) -> dict[str, str]:
    """As `details_of_http`."""
    details = {"protocol": "GRPC", "method": name, "body_sha256": await _digest(message)}
    return details | _settings(getattr(request, "settings", ()))


def changes_something(request: Any) -> bool:
    """Whether a message does more than ask: settings are shown by the RPC that changes them."""
    settings = getattr(request, "settings", None)
    return settings is None or len(settings) > 0


async def _digest(data: bytes) -> str:
    if len(data) <= _SMALL_BYTES:
        return sha256(data).hexdigest()
    # a load request brings a whole model
    return await asyncio.to_thread(lambda: sha256(data).hexdigest())


def _settings(given: Any) -> dict[str, str]:
    """Names of settings that there may be; others may hold anything."""
    names = sorted(name for name in given if _SETTING.fullmatch(name))[:16]
    return {"settings": ",".join(names)} if names else {}


def noting_call(app: App) -> App:
    """An ASGI app whose refusals know which call they are of."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        CALL.set(scope)
        await app(scope, receive, send)

    return call


def client_of_call() -> str:
    """The other end's address; empty where that is not known."""
    call = CALL.get(None)
    if call is None:
        return ""
    if not isinstance(call, dict):
        return str(call[1].peer())
    client = call.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def _route() -> dict[str, str]:
    """What the call asked for: RPC, or method and path. Without the query, which may hold a credential."""
    call = CALL.get(None)
    if call is None:
        return {}
    if not isinstance(call, dict):
        return _rpc(call[0])
    kind = next((value for name, value in call["headers"] if name == b"content-type"), b"")
    if kind.startswith(b"application/grpc"):
        return _rpc(call["path"])
    return {"protocol": "HTTP", "method": call["method"], "path": call["path"]}


def _rpc(path: str) -> dict[str, str]:
    return {"protocol": "GRPC", "method": path.rpartition("/")[2]}


def _request_id() -> str:
    """What the client calls its request."""
    call = CALL.get(None)
    if isinstance(call, dict):
        found = next((value for name, value in call["headers"] if name == _REQUEST_ID), b"")
        return found.decode("latin-1")
    metadata = () if call is None else call[1].invocation_metadata() or ()
    found = next((value for name, value in metadata if name == _REQUEST_ID.decode()), "")
    return found if isinstance(found, str) else ""
