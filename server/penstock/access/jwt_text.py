"""A token's text → its header and claims, as yet unverified: strict where JSON Web Tokens may be read in two ways."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, NoReturn

import msgspec

SEGMENTS: Final = 3
ENCRYPTED_SEGMENTS: Final = 5
MAX_HEADER_BYTES: Final = 4096
"""Longer headers carry whole certificates, which nobody reads here."""
MAX_DEPTH: Final = 16
"""Of lists and objects within each other."""


class TokenRefused(Exception):
    """Why a token is refused: for logs, never for who sent it."""


class UnverifiedToken(msgspec.Struct, frozen=True):
    """What a token says. Anybody may have written it."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    """What the signature is of."""
    signature: bytes

    @property
    def algorithm(self) -> str:
        """`alg` of the header."""
        return str(self.header["alg"])

    @property
    def key_id(self) -> str | None:
        """`kid` of the header."""
        key_id: str | None = self.header.get("kid")
        return key_id


def is_token(text: bytes) -> bool:
    """Whether it has the shape of a token, signed or encrypted. An API key has not."""
    return text.count(b".") in (SEGMENTS - 1, ENCRYPTED_SEGMENTS - 1)


def read_token(text: bytes, max_bytes: int) -> UnverifiedToken:
    """The parts of a signed token in compact form. Raises TokenRefused."""
    if len(text) > max_bytes:
        raise TokenRefused(f"{len(text)} bytes, over the limit of {max_bytes}")
    segments = text.split(b".")
    if len(segments) != SEGMENTS:
        raise TokenRefused("an encrypted token, expected a signed one")
    if len(segments[0]) > MAX_HEADER_BYTES:
        raise TokenRefused(f"a header of {len(segments[0])} bytes")
    header, claims = (_read_object(segment) for segment in segments[:2])
    _check_header(header)
    return UnverifiedToken(header, claims, text[: text.rindex(b".")], _decoded(segments[2]))


def read_json_object(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8, no name twice in it, not deep. Raises ValueError."""
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if not _is_flat_enough(value):
        raise ValueError("too deep")
    return value


def _read_object(segment: bytes) -> dict[str, Any]:
    try:
        return read_json_object(_decoded(segment))
    except ValueError as error:
        raise TokenRefused(f"not a JSON object: {error}") from None


def _decoded(segment: bytes) -> bytes:
    """base64url without padding, and without bits that nobody reads: one token has one spelling."""
    try:
        decoded = base64.b64decode(segment + b"=" * (-len(segment) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused("not base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise TokenRefused("not base64url in its one form")
    return decoded


def _check_header(header: dict[str, Any]) -> None:
    for name in ("alg", "kid", "typ", "cty"):
        if name in header and not isinstance(header[name], str):
            raise TokenRefused(f"header {name} is no text")
    if "alg" not in header:
        raise TokenRefused("header without alg")
    if "crit" in header or "b64" in header:
        raise TokenRefused("header with crit or b64: extensions that are not known here")
    if "enc" in header or "zip" in header:
        raise TokenRefused("header with enc or zip: an encrypted token")
    if header.get("cty", "").lower() in ("jwt", "application/jwt"):
        raise TokenRefused("a token within a token")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _is_flat_enough(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner
        if not level:
            return True
    return False
