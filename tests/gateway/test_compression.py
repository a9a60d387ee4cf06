"""Compressed bodies: both ways, broken ones, and bombs."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest, PayloadTooLarge, PenstockError, Unsupported
from penstock.gateway.compression import choose_encoding, compress, decompress

LIMIT = 1 << 20


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body, wbits=-15)


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]))
def test_round_trip(body: bytes, encoding: str) -> None:
    assert decompress(compress(body, encoding), encoding, LIMIT) == body


@given(st.binary(max_size=2000))
def test_what_other_clients_send(body: bytes) -> None:
    assert decompress(gzip.compress(body), "GZIP", LIMIT) == body
    assert decompress(zlib.compress(body), "deflate", LIMIT) == body
    assert decompress(raw_deflate(body), "deflate", LIMIT) == body
    assert decompress(body, "identity", LIMIT) == body


def test_clients_read_what_is_sent() -> None:
    assert gzip.decompress(compress(b"body", "gzip")) == b"body"
    assert zlib.decompress(compress(b"body", "deflate")) == b"body"


@pytest.mark.parametrize(
    ("body", "encoding", "says"),
    [
        (b"", "gzip", "truncated"),
        (b"", "deflate", "truncated"),
        (b"not gzip at all", "gzip", "not valid gzip"),
        (b"\xff" * 20, "deflate", "not valid deflate"),
        (gzip.compress(b"body")[:-1], "gzip", "truncated"),
        (gzip.compress(b"body")[:12], "gzip", "truncated"),
        (gzip.compress(b"body")[:-8] + bytes(8), "gzip", "not valid gzip"),
        (gzip.compress(b"body") + b"more", "gzip", "4 bytes follow"),
        (zlib.compress(b"body"), "gzip", "not valid gzip"),
    ],
)
def test_broken_bodies(body: bytes, encoding: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        decompress(body, encoding, LIMIT)


def test_unknown_encodings_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="Unsupported compression type 'br', expected gzip"):
        decompress(b"", "br", LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_limit_is_exact(encoding: str) -> None:
    packed = compress(bytes(1000), encoding)
    assert len(decompress(packed, encoding, 1000)) == 1000
    with pytest.raises(PayloadTooLarge, match="over 999 bytes"):
        decompress(packed, encoding, 999)


def test_a_bomb_is_not_inflated() -> None:
    bomb = compress(bytes(200_000_000), "gzip")
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, "gzip", LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 199), st.binary(max_size=4), st.booleans())
def test_mutated_bodies_raise_nothing_else(
    body: bytes, at: int, patch: bytes, gzipped: bool
) -> None:
    encoding = "gzip" if gzipped else "deflate"
    packed = compress(body, encoding)
    with suppress(PenstockError):
        decompress(packed[:at] + patch + packed[at + len(patch) :], encoding, LIMIT)


@pytest.mark.parametrize(
    ("accepts", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "deflate"),
        ("GZIP ;Q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.4", "gzip"),
        ("gzip;q=0", None),
        ("br", None),
        ("*", None),
        ("br, *;q=0.1", None),
        ("gzip;q=nan", None),
        ("gzip;q=", None),
        ("gzip;x=1", None),
        ("gzip;q=7", None),
        (",,;;=,", None),
    ],
)
def test_the_client_s_choice(accepts: str, chosen: str | None) -> None:
    """The cases that Triton decides too were asked of a real one, 2.51."""
    assert choose_encoding(accepts) == chosen


@given(st.text("gzipdeflate*;q=.01, ", max_size=40))
def test_any_header_is_read(accepts: str) -> None:
    assert choose_encoding(accepts) in (None, "gzip", "deflate")
