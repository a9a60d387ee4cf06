"""What comes with a call rather than in its message: how long its client waits, and for whom it is. The same for both
protocols and both fronts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Literal, Protocol

from penstock.access.credentials import CERTIFICATE, headers_of, of_headers
from penstock.access.guard import Guard
from penstock.access.session import OPEN, AnySession, Session
from penstock.errors import InvalidRequest, Unauthenticated
from penstock.gateway.forwarded_certificate import forwarded_call
from penstock.types import NO_TERMS, CallTerms, TracedCall, TraceSwitch
from penstock.verbs import Verb

HTTP_TIMEOUT: Final = b"x-request-timeout-ms"
GRPC_TIMEOUT: Final = b"grpc-timeout"

MAX_REMEMBERED: Final = 1024
"""Values of headers that are remembered."""

WORTH_TELLING_US: Final = 500
"""A call that took less to come in has the terms it came with."""

_GRPC_TIMEOUT_PATTERN: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_HTTP_TIMEOUT_PATTERN: Final = re.compile(rb"([0-9]{1,10})(?:\.([0-9]{1,9}))?")
_TENANT_PATTERN: Final = re.compile(rb"[ -~]{1,128}")
_GRPC_UNITS_NS: Final[Mapping[bytes, int]] = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}


class Call(Protocol):
    """What grpc.aio tells of a call."""

    def time_remaining(self) -> float | None:
        """Seconds until its client gives up; None: it waits for ever."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Its headers, but those that gRPC keeps for itself."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS says of its client."""
        ...


class TermsReader:
    """Reads calls' terms. All methods raise InvalidRequest, naming the header, on a value that is none.

    Clients repeat their values, so those are parsed once. A header that is sent twice counts as it was sent last.
    """

    def __init__(
        self,
        tenant_header: str = "",
        switch: TraceSwitch | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`tenant_header`: the header that names the tenant, in lower case; empty: none does. `switch`: tells whether
        calls are traced. `guard`: tells whose they are; None: access is not controlled."""
        self._guard = guard
        self.switch: Final = switch or TraceSwitch()
        self._tenant_header = tenant_header.encode()
        self._grpc = _Parsed(parse_grpc_timeout, GRPC_TIMEOUT, tenant_header)
        self._http = _Parsed(parse_http_timeout, HTTP_TIMEOUT, tenant_header)

    def of_grpc(self, headers: Collection[tuple[bytes, bytes]]) -> CallTerms:
        """The terms of a gRPC call, from its HTTP/2 headers."""
        if self._guard is not None:
            return self._guarded(self._guard, self._grpc, "GRPC", headers_of(headers))
        if self._tenant_header or self.switch.on:
            return self._of_all_headers(headers)
        for name, value in headers:
            if name == GRPC_TIMEOUT:
                return self._grpc.terms(value, b"")
        return NO_TERMS

    def _of_all_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> CallTerms:
        known = dict(headers)
        tenant = known.get(self._tenant_header, b"") if self._tenant_header else b""
        terms = self._grpc.terms(known.get(GRPC_TIMEOUT), tenant)
        return traced(terms, "GRPC", known.get) if self.switch.on else terms

    def of_http(self, headers: Mapping[bytes, bytes]) -> CallTerms:
        """The terms of an HTTP request."""
        if self._guard is not None:
            return self._guarded(self._guard, self._http, "HTTP", headers)
        timeout = headers.get(HTTP_TIMEOUT)
        tenant = headers.get(self._tenant_header, b"") if self._tenant_header else b""
        if self.switch.on:
            return traced(self._http.terms(timeout, tenant), "HTTP", headers.get)
        if timeout is None and not tenant:
            return NO_TERMS
        return self._http.terms(timeout, tenant)

    def of_call(self, call: Call) -> CallTerms:
        """The terms of a gRPC call as grpc.aio tells them, which has read `grpc-timeout` itself."""
        if self._guard is not None:
            return self._guarded_call(self._guard, call)
        remaining_s = call.time_remaining()
        known: dict[bytes, bytes] = {}
        if self._tenant_header or self.switch.on:
            known = metadata_of(call)
        tenant = known.get(self._tenant_header, b"") if self._tenant_header else b""
        terms = NO_TERMS
        if remaining_s is not None or tenant:
            timeout_us = None if remaining_s is None else int(remaining_s * 1e6)
            terms = CallTerms(timeout_us, self._grpc.terms(None, tenant).tenant)
        if self.switch.on:
            terms = received(traced(terms, "GRPC", known.get))
        return terms

    def session(self, headers: Mapping[bytes, bytes]) -> AnySession:
        """Whose a call is that may need no credential. Raises nothing: who checks the session does."""
        if self._guard is None:
            return OPEN
        return self._guard.session_or_unknown(of_headers(headers))

    def session_of_call(self, call: Call) -> AnySession:
        """As `session`, of a call as grpc.aio tells of it."""
        return OPEN if self._guard is None else self.session(metadata_of(call))

    def renewed(self, headers: Mapping[bytes, bytes]) -> CallTerms:
        """The terms, without a time-out, of a later request of a call that had these headers. Only where access is
        controlled. Raises Unauthenticated."""
        assert self._guard is not None
        return _known(self._guard, headers).terms

    def _guarded(
        self,
        guard: Guard,
        parsed: _Parsed,
        protocol: Literal["HTTP", "GRPC"],
        headers: Mapping[bytes, bytes],
    ) -> CallTerms:
        session = _known(guard, headers)
        timeout = headers.get(parsed.timeout_header)
        terms = session.terms
        if timeout is not None:
            timeout_us = parsed.terms(timeout, b"").timeout_us
            terms = CallTerms(timeout_us, session.tenant, None, session)
        return traced(terms, protocol, headers.get) if self.switch.on else terms

    def _guarded_call(self, guard: Guard, call: Call) -> CallTerms:
        headers = metadata_of(call)
        session = _known(guard, headers)
        remaining_s = call.time_remaining()
        terms = session.terms
        if remaining_s is not None:
            terms = CallTerms(int(remaining_s * 1e6), session.tenant, None, session)
        return received(traced(terms, "GRPC", headers.get)) if self.switch.on else terms


def _known(guard: Guard, headers: Mapping[bytes, bytes]) -> Session:
    """Raises Unauthenticated."""
    try:
        return guard.session(of_headers(headers))
    except Unauthenticated as error:
        guard.on_refusal(None, error, Verb.INFER, "")
        raise


class _Parsed:
    """Values of headers → terms, each distinct one parsed once."""

    def __init__(
        self, parse_timeout: Callable[[bytes], int], timeout_header: bytes, tenant_header: str
    ) -> None:
        self.timeout_header: Final = timeout_header
        self._parse_timeout = parse_timeout
        self._tenant_header = tenant_header
        self._known: dict[tuple[bytes | None, bytes], CallTerms] = {(None, b""): NO_TERMS}

    def terms(self, timeout: bytes | None, tenant: bytes) -> CallTerms:
        """`timeout` None: there is no such header. `tenant` empty: the default one."""
        known = self._known.get((timeout, tenant))
        return self._parse(timeout, tenant) if known is None else known

    def _parse(self, timeout: bytes | None, tenant: bytes) -> CallTerms:
        terms = CallTerms(
            None if timeout is None else self._parse_timeout(timeout),
            parse_tenant(tenant, self._tenant_header) if tenant else NO_TERMS.tenant,
        )
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[timeout, tenant] = terms
        return terms


def from_now(terms: CallTerms, began_ns: int) -> CallTerms:
    """The terms of a call that began then (`time.monotonic_ns()`), for those who count from now.

    Receiving and decoding a large message takes of its client's time."""
    received(terms)
    if terms.timeout_us is None:
        return terms
    spent_us = (time.monotonic_ns() - began_ns) // 1000
    if spent_us < WORTH_TELLING_US:
        return terms
    left_us = max(0, terms.timeout_us - spent_us)
    return CallTerms(left_us, terms.tenant, terms.traced, terms.session)


def received(terms: CallTerms) -> CallTerms:
    """The terms of a call whose message is here now, for its trace."""
    if terms.traced is not None and not terms.traced.received_ns:
        terms.traced.received_ns = time.monotonic_ns()
    return terms


def traced(
    terms: CallTerms,
    protocol: Literal["HTTP", "GRPC"],
    header: Callable[[bytes], bytes | None],
    began_ns: int = 0,
) -> CallTerms:
    """The terms of a call that began then, or begins now."""
    parent, state = header(b"traceparent") or b"", header(b"tracestate") or b""
    call = TracedCall(
        protocol,
        began_ns or time.monotonic_ns(),
        parent.decode("latin-1"),
        state.decode("latin-1"),
    )
    return CallTerms(terms.timeout_us, terms.tenant, call, terms.session)


def metadata_of(call: Call) -> dict[bytes, bytes]:
    """The call's headers; one that is sent twice counts as it was sent last. Who the client is by its certificate is
    what TLS says, whatever the client says."""
    metadata = headers_of(
        [
            (name.encode(), value.encode("utf-8", "replace") if isinstance(value, str) else value)
            for name, value in call.invocation_metadata() or ()
        ]
    )
    metadata.pop(CERTIFICATE, None)
    if identity := forwarded_call(call):
        metadata[CERTIFICATE] = identity
    return metadata


def parse_grpc_timeout(value: bytes) -> int:
    """Microseconds, rounded up, of a `grpc-timeout`; clients send 0 when their time is over.

    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
    """
    match = _GRPC_TIMEOUT_PATTERN.fullmatch(value)
    if match is None:
        raise InvalidRequest(
            f"grpc-timeout {_shown(value)} is none: expected 1 to 8 digits and a unit,"
            " one of H, M, S, m, u and n"
        )
    return -(-int(match[1]) * _GRPC_UNITS_NS[match[2]] // 1000)


def parse_http_timeout(value: bytes) -> int:
    """Microseconds, rounded up, of an `X-Request-Timeout-Ms`."""
    match = _HTTP_TIMEOUT_PATTERN.fullmatch(value)
    if match is not None:
        # of a millisecond's fraction, nine digits
        fraction = int((match[2] or b"").ljust(9, b"0"))
        timeout_us = int(match[1]) * 1000 - (-fraction // 1_000_000)
        if timeout_us > 0:
            return timeout_us
    raise InvalidRequest(
        f"X-Request-Timeout-Ms {_shown(value)} is none: expected milliseconds, a positive number"
        " with at most 10 digits before the point, such as 250 or 0.5"
    )


def parse_tenant(value: bytes, header: str) -> str:
    """A tenant's name, as the header of that name has it."""
    if _TENANT_PATTERN.fullmatch(value) is None:
        raise InvalidRequest(
            f"{header} {_shown(value)} is no tenant's name: expected 1 to 128 characters of"
            " printable ASCII"
        )
    return value.decode("ascii")


def _shown(value: bytes) -> str:
    """Quoted, in ASCII, on one line."""
    return repr(value[:40])[1:]
