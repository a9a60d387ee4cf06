"""Credentials → sessions, remembered until something changes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from certificates import Authority
from penstock.access import guard as guarding
from penstock.access.certificate_auth import CertificateAuthenticator
from penstock.access.credentials import Credentials
from penstock.access.guard import MAX_SESSIONS, NO_CREDENTIAL, Guard
from penstock.access.principal import Principal
from penstock.access.session import UnknownSession
from penstock.access_config import AccessSettings, CertificateIdentity
from penstock.errors import Forbidden, PenstockError, Unauthenticated
from penstock.gateway.forwarded_certificate import forwarded_pem
from penstock.verbs import Verb

AUTHORITY = Authority()


def certificate_of(uri: str) -> bytes:
    """As a front tells of it."""
    return forwarded_pem(AUTHORITY.issue(uris=[uri]).certificate)


CERTIFICATE = certificate_of("spiffe://example.org/a")


class Keys:
    """An authenticator of the keys that a test gives."""

    def __init__(self) -> None:
        self.generation = 0
        self.known: dict[bytes, Principal] = {}
        self.asked = 0
        self.refreshed = 0

    def refresh(self, now: float) -> None:
        self.refreshed += 1

    def authenticate(self, credentials: Credentials) -> Principal | None:
        self.asked += 1
        shown = credentials.api_key or credentials.authorization.removeprefix(b"Bearer ")
        if not shown.startswith(b"psk_"):
            return None
        principal = self.known.get(shown)
        if principal is None:
            raise Unauthenticated("no")
        return principal


def key(name: str, tenant: str = "a", *, expires_at: float = 0) -> Principal:
    return Principal(f"key:{name}", tenant, ("user",), "api_key", expires_at=expires_at)


class Bench:
    def __init__(self, **settings: object) -> None:
        self.keys = Keys()
        self.keys.known[b"psk_1"] = key("1")
        self.refusals: list[tuple[Principal | None, PenstockError, str, str]] = []
        access = AccessSettings(mode="required", **settings)  # type: ignore[arg-type]
        self.guard = Guard(
            access,
            [self.keys],
            CertificateAuthenticator(access.certificates),
            on_refusal=lambda *told: self.refusals.append(told),
        )


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are looked for at every request."""
    monkeypatch.setattr(guarding, "REFRESH_NS", 0)


@pytest.mark.parametrize(
    "credentials", [Credentials(b"Bearer psk_1"), Credentials(api_key=b"psk_1")]
)
def test_a_key_in_either_header(credentials: Credentials) -> None:
    assert Bench().guard.session(credentials).principal.id == "key:1"


def test_a_credential_is_looked_at_once() -> None:
    bench = Bench()
    sessions = {id(bench.guard.session(Credentials(api_key=b"psk_1"))) for _ in range(10)}
    assert len(sessions) == 1
    assert bench.keys.asked == 1
    assert bench.keys.refreshed == 1


@pytest.mark.usefixtures("at_once")
def test_a_change_ends_all_sessions() -> None:
    bench = Bench()
    bench.guard.session(Credentials(api_key=b"psk_1"))
    del bench.keys.known[b"psk_1"]
    bench.keys.generation += 1
    with pytest.raises(Unauthenticated):
        bench.guard.session(Credentials(api_key=b"psk_1"))


@pytest.mark.usefixtures("at_once")
def test_a_session_ends_when_its_credential_does() -> None:
    bench = Bench()
    bench.keys.known[b"psk_1"] = key("1", expires_at=time.time() - 1)
    first = bench.guard.session(Credentials(api_key=b"psk_1"))
    assert bench.guard.session(Credentials(api_key=b"psk_1")) is not first
    assert bench.keys.asked == 2


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "credentials", [Credentials(api_key=b"psk_1"), Credentials(certificate=CERTIFICATE)]
)
def test_a_disabled_tenant_is_not_known_whatever_names_it(credentials: Credentials) -> None:
    keys, reach = Keys(), {"a": ("m",)}
    keys.known[b"psk_1"] = key("1")
    access = AccessSettings(mode="required")
    identity = CertificateIdentity(uri="spiffe://example.org/*", tenant="a")
    guard = Guard(access, [keys], CertificateAuthenticator((identity,)), reach_of=reach.get)
    session = guard.session(credentials)
    assert session.may(Verb.INFER, "m")
    assert not session.may(Verb.INFER, "other")
    del reach["a"]
    keys.generation += 1
    with pytest.raises(Unauthenticated, match="does not hold any more"):
        guard.session(credentials)


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        (Credentials(), NO_CREDENTIAL),
        (Credentials(certificate=certificate_of("spiffe://elsewhere")), NO_CREDENTIAL),
        (Credentials(b"Bearer psk_2"), "no"),
        (Credentials(b"Basic abc"), "the credential is of no kind that is known here"),
        (Credentials(b"Bearer psk_1", b"psk_1"), "two credentials: expected one of"),
    ],
)
def test_who_is_not_known(credentials: Credentials, text: str) -> None:
    bench = Bench(certificates=(CertificateIdentity(uri="spiffe://example.org/*", tenant="a"),))
    with pytest.raises(Unauthenticated) as caught:
        bench.guard.session(credentials)
    assert str(caught.value).startswith(text)
    session = bench.guard.session_or_unknown(credentials)
    assert isinstance(session, UnknownSession)
    assert not session.may(Verb.READ_METADATA)
    tries: list[Callable[[], None]] = [
        session.known,
        lambda: session.check(Verb.INFER, "m"),
        lambda: session.check_of(Verb.READ_AUDIT, "a"),
    ]
    for attempt in tries:
        with pytest.raises(Unauthenticated):
            attempt()
    assert [(verb, model) for _, _, verb, model in bench.refusals] == [
        ("", ""),
        ("infer", "m"),
        ("read_audit", ""),
    ]


def test_a_certificate_is_a_credential() -> None:
    bench = Bench(certificates=(CertificateIdentity(uri="spiffe://example.org/*", tenant="a"),))
    session = bench.guard.session(Credentials(certificate=CERTIFICATE))
    assert (session.tenant, session.principal.kind) == ("a", "certificate")


def test_a_key_and_a_certificate_must_be_of_one_tenant() -> None:
    bench = Bench(certificates=(CertificateIdentity(uri="spiffe://example.org/*", tenant="a"),))
    both = Credentials(b"Bearer psk_1", b"", CERTIFICATE)
    assert bench.guard.session(both).principal.id == "key:1"
    bench.keys.known[b"psk_b"] = key("b", "b")
    with pytest.raises(Unauthenticated, match="not of the tenant that the certificate names"):
        bench.guard.session(Credentials(b"Bearer psk_b", b"", CERTIFICATE))


def test_anonymous_callers_where_they_are_let_in() -> None:
    bench = Bench(anonymous_roles=("viewer",), anonymous_tenant="public")
    session = bench.guard.session(Credentials())
    assert session.tenant == "public"
    session.check(Verb.READ_METADATA, "m")
    with pytest.raises(Forbidden, match=r"^not allowed: infer of model 'm'$"):
        session.check(Verb.INFER, "m")
    # a bad credential is not the same as none
    with pytest.raises(Unauthenticated):
        bench.guard.session(Credentials(b"Bearer psk_2"))


def test_what_is_remembered_is_bounded() -> None:
    bench = Bench()
    for number in range(MAX_SESSIONS + 10):
        name = f"psk_{number}".encode()
        bench.keys.known[name] = key(str(number))
        bench.guard.session(Credentials(api_key=name))
    assert len(bench.guard._sessions) <= MAX_SESSIONS
    session = bench.guard.session(Credentials(api_key=b"psk_1"))
    for number in range(3000):
        with pytest.raises(Forbidden):
            session.check(Verb.LOAD, f"model {number}")
    assert len(session._decisions) <= 1024


def test_a_refusal_names_who_was_refused_what() -> None:
    bench = Bench()
    session = bench.guard.session(Credentials(api_key=b"psk_1"))
    with pytest.raises(Forbidden):
        session.check(Verb.LOAD, "m")
    ((principal, error, verb, model),) = bench.refusals
    assert principal == session.principal
    assert isinstance(error, Forbidden)
    assert (verb, model) == (Verb.LOAD, "m")
