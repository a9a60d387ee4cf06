"""What a call shows of whose it is. The same for both protocols and both fronts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

AUTHORIZATION: Final = b"authorization"
API_KEY: Final = b"x-api-key"
CERTIFICATE: Final = b"x-forwarded-client-cert"
"""Who the client's certificate says it is, as Envoy writes it. No client can send this: each front puts its own in the
place of what came."""


class Credentials(NamedTuple):
    """Values of headers; empty where there is none."""

    authorization: bytes = b""
    """`Bearer `, and an API key or a JWT."""
    api_key: bytes = b""
    certificate: bytes = b""
    """`Subject="…";URI=…;DNS=…`, of the certificate that the client has proven to own."""


NOTHING: Final = Credentials()


def headers_of(pairs: Collection[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; one that is sent twice counts as it was sent last. Credentials do not: of two, somebody before
    us may have looked at the other one. Joined as HTTP joins values, they are none."""
    headers = dict(pairs)
    if len(headers) != len(pairs):
        for name in (AUTHORIZATION, API_KEY):
            values = [value for key, value in pairs if key == name]
            if len(values) > 1:
                headers[name] = b", ".join(values)
    return headers


def of_headers(headers: Mapping[bytes, bytes]) -> Credentials:
    """What the headers, or the metadata, show."""
    get = headers.get
    # once a request: without the call in Python that `Credentials(…)` is
    return tuple.__new__(
        Credentials, (get(AUTHORIZATION, b""), get(API_KEY, b""), get(CERTIFICATE, b""))
    )
