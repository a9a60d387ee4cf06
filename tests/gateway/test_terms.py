"""Timeouts and tenants as calls bring them: what each header means, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.terms import MAX_REMEMBERED, TermsReader, from_now
from penstock.types import NO_TERMS, CallTerms, TraceSwitch

OTHERS = [(b"host", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
TENANT = "x-tenant"
HOUR_US = 3_600_000_000


def grpc_terms(*headers: tuple[bytes, bytes], tenant_header: str = "") -> CallTerms:
    return TermsReader(tenant_header).of_grpc([*OTHERS, *headers])


def http_terms(tenant_header: str = "", **headers: bytes) -> CallTerms:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return TermsReader(tenant_header).of_http(dict(OTHERS) | named)


@pytest.mark.parametrize(
    ("value", "timeout_us"),
    [
        (b"1H", HOUR_US),
        (b"2M", 120_000_000),
        (b"3S", 3_000_000),
        (b"4m", 4000),
        (b"5u", 5),
        (b"6n", 1),
        (b"1000n", 1),
        (b"1001n", 2),
        (b"0n", 0),
        (b"00000001S", 1_000_000),
        (b"99999999H", 99_999_999 * HOUR_US),
    ],
)
def test_grpc_timeouts(value: bytes, timeout_us: int) -> None:
    assert grpc_terms((b"grpc-timeout", value)) == CallTerms(timeout_us)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"1", b"S", b"1s", b"1h", b"1 S", b" 1S", b"1S ", b"1S\n", b"-1S", b"+1S", b"1.5S"),
        *(b"1e3m", b"123456789m", b"1SS", b"1S,1S", b"0x1S", b"1_0S", "\u0661S".encode(), b"\xff"),
    ],
)
def test_bad_grpc_timeouts(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^grpc-timeout '.*' is none: expected 1 to 8 digits"):
        grpc_terms((b"grpc-timeout", value))


@pytest.mark.parametrize(
    ("value", "timeout_us"),
    [
        (b"1", 1000),
        (b"250", 250_000),
        (b"0.5", 500),
        (b"0.001", 1),
        (b"0.0001", 1),
        (b"0.000000001", 1),
        (b"1.0010", 1001),
        (b"1.1", 1100),
        (b"9999999999", 9_999_999_999_000),
    ],
)
def test_http_timeouts(value: bytes, timeout_us: int) -> None:
    assert http_terms(x_request_timeout_ms=value) == CallTerms(timeout_us)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"0", b"0.0", b"-1", b"+1", b"abc", b"1s", b"1e3", b"inf", b"nan", b".5", b"5."),
        *(b"1,5", b"1_0", b" 1", b"0x10", b"10000000000", b"1.0000000001", b"\xd9\xa1", b"100m"),
    ],
)
def test_bad_http_timeouts(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^X-Request-Timeout-Ms '.*' is none: expected milli"):
        http_terms(x_request_timeout_ms=value)


def test_a_long_value_is_not_repeated_at_length() -> None:
    with pytest.raises(InvalidRequest) as caught:
        http_terms(x_request_timeout_ms=b"9" * 10_000)
    assert len(str(caught.value)) < 250


def test_a_text_is_one_line_whatever_came() -> None:
    with pytest.raises(InvalidRequest) as caught:
        grpc_terms((b"grpc-timeout", b"1\n\xff\0S"))
    assert r"'1\n\xff\x00S' is none" in str(caught.value)


def test_what_is_no_header_of_ours_costs_nothing() -> None:
    assert grpc_terms() is NO_TERMS
    assert http_terms() is NO_TERMS
    assert grpc_terms(tenant_header=TENANT) is NO_TERMS
    assert http_terms(TENANT) is NO_TERMS


def test_each_protocol_has_its_own_header() -> None:
    assert grpc_terms((b"x-request-timeout-ms", b"5")) is NO_TERMS
    assert http_terms(grpc_timeout=b"5S") is NO_TERMS


def test_what_one_protocol_remembers_the_other_refuses() -> None:
    reader = TermsReader()
    assert reader.of_grpc([(b"grpc-timeout", b"5m")]).timeout_us == 5000
    with pytest.raises(InvalidRequest):
        reader.of_http({b"x-request-timeout-ms": b"5m"})
    assert reader.of_http({b"x-request-timeout-ms": b"5"}).timeout_us == 5000
    with pytest.raises(InvalidRequest):
        reader.of_grpc([(b"grpc-timeout", b"5")])


def test_equal_values_are_parsed_once_and_few_are_remembered() -> None:
    reader = TermsReader(TENANT)
    first = reader.of_grpc([(b"grpc-timeout", b"5m"), (b"x-tenant", b"a")])
    again = [(bytes(bytearray(name)), value) for name, value in [(b"grpc-timeout", b"5m")]]
    assert reader.of_grpc([*again, (b"x-tenant", b"a")]) is first
    for number in range(3 * MAX_REMEMBERED):
        assert reader.of_grpc([(b"grpc-timeout", b"%du" % number)]).timeout_us == number
        assert len(reader._grpc._known) <= MAX_REMEMBERED


# ── tenants ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "tenant"),
    [
        (b"search", "search"),
        (b"Team Blue/eu-1", "Team Blue/eu-1"),
        (b"x" * 128, "x" * 128),
        (b"", "default"),
    ],
)
def test_tenants(value: bytes, tenant: str) -> None:
    assert grpc_terms((b"x-tenant", value), tenant_header=TENANT) == CallTerms(tenant=tenant)
    assert http_terms(TENANT, x_tenant=value) == CallTerms(tenant=tenant)


def test_a_tenant_with_a_timeout() -> None:
    headers = [(b"grpc-timeout", b"1S"), (b"x-tenant", b"a")]
    for each in (headers, headers[::-1]):
        assert grpc_terms(*each, tenant_header=TENANT) == CallTerms(1_000_000, "a")
    assert http_terms(TENANT, x_tenant=b"a", x_request_timeout_ms=b"2") == CallTerms(2000, "a")
    assert grpc_terms(headers[0], tenant_header=TENANT) == CallTerms(1_000_000)


def test_a_tenant_counts_only_where_a_header_is_set() -> None:
    assert grpc_terms((b"x-tenant", b"a")) is NO_TERMS
    assert http_terms(x_tenant=b"a") is NO_TERMS


@pytest.mark.parametrize("value", [b"x" * 129, b"a\tb", b"a\n", b"a\0", "é".encode(), b"\x7f"])
def test_bad_tenants(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^x-tenant '.*' is no tenant's name: expected 1 to"):
        grpc_terms((b"x-tenant", value), tenant_header=TENANT)
    with pytest.raises(InvalidRequest, match=r"^x-tenant '.*' is no tenant's name: expected 1 to"):
        http_terms(TENANT, x_tenant=value)


def test_a_header_that_is_sent_twice_counts_as_it_was_sent_last() -> None:
    twice = [(b"x-tenant", b"a"), (b"x-tenant", b"b")]
    assert grpc_terms(*twice, tenant_header=TENANT).tenant == "b"


# ── as grpc.aio tells them ──────────────────────────────────────────────────────────────────────────────────────────


class FakeCall:
    """grpc.aio's context."""

    def __init__(
        self, remaining_s: float | None, *metadata: tuple[str, str | bytes], none: bool = False
    ) -> None:
        self._remaining_s = remaining_s
        self._metadata = None if none else metadata

    def time_remaining(self) -> float | None:
        return self._remaining_s

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        return self._metadata


def test_calls_of_grpc_aio() -> None:
    reader = TermsReader(TENANT)
    other = ("user-agent", "x")
    assert reader.of_call(FakeCall(None)) is NO_TERMS
    assert reader.of_call(FakeCall(None, none=True)) is NO_TERMS
    assert reader.of_call(FakeCall(None, other, (TENANT, ""))) is NO_TERMS
    assert reader.of_call(FakeCall(0.25, other)) == CallTerms(250_000)
    assert reader.of_call(FakeCall(0.0)) == CallTerms(0)
    assert reader.of_call(FakeCall(None, (TENANT, "a"), other)) == CallTerms(tenant="a")
    assert reader.of_call(FakeCall(1.5, (TENANT, b"a"))) == CallTerms(1_500_000, "a")
    assert TermsReader().of_call(FakeCall(None, (TENANT, "a"))) is NO_TERMS
    with pytest.raises(InvalidRequest, match=r"^x-tenant"):
        reader.of_call(FakeCall(None, (TENANT, "é")))


# ── time that is gone ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_left_of_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5_000_000_000)
    terms = CallTerms(30_000, "a")
    assert from_now(terms, 4_990_000_000) == CallTerms(20_000, "a")
    assert from_now(terms, 4_970_000_000) == CallTerms(0, "a")
    assert from_now(terms, 1_000_000_000) == CallTerms(0, "a")
    # as if no time had passed
    assert from_now(terms, 4_999_900_000) is terms
    assert from_now(NO_TERMS, 0) is NO_TERMS


# ── traces ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("tenant_header", ["", TENANT])
def test_calls_are_traced_while_the_switch_is_on(tenant_header: str) -> None:
    switch = TraceSwitch()
    reader = TermsReader(tenant_header, switch)
    headers = [*OTHERS, (b"traceparent", PARENT), (b"tracestate", b"a=b"), (b"x-tenant", b"t")]
    text = [(name.decode(), value.decode()) for name, value in headers]
    ways: list[tuple[str, Callable[[], CallTerms]]] = [
        ("GRPC", lambda: reader.of_grpc(headers)),
        ("HTTP", lambda: reader.of_http(dict(headers))),
        ("GRPC", lambda: reader.of_call(FakeCall(None, *text))),
    ]
    for protocol, terms in ways:
        switch.on = False
        assert terms().traced is None
        switch.on = True
        before_ns = time.monotonic_ns()
        traced = from_now(terms(), 0).traced
        assert traced is not None
        assert (traced.protocol, traced.traceparent, traced.tracestate) == (
            protocol,
            PARENT.decode(),
            "a=b",
        )
        assert before_ns <= traced.started_ns <= traced.received_ns <= time.monotonic_ns()
        assert terms().tenant == ("t" if tenant_header else NO_TERMS.tenant)


def test_a_traced_calls_time_runs_as_any_others() -> None:
    reader = TermsReader("", TraceSwitch(on=True))
    terms = reader.of_grpc([(b"grpc-timeout", b"1S")])
    assert terms.timeout_us == 1_000_000
    later = from_now(terms, time.monotonic_ns() - 400_000_000)
    assert later.timeout_us is not None and 500_000 < later.timeout_us <= 600_000
    assert later.traced is terms.traced
