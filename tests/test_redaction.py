"""What looks like a credential is taken out of texts; all else stays as it is."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.logs import Iso8601Formatter, JsonFormatter, LineFormatter
from penstock.redaction import HIDDEN, redacted

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
KEY = "psk_1a2b3c4d5e_" + "S3cr3t" * 8
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHt\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key {KEY}!", f"key psk_1a2b3c4d5e_{HIDDEN}!"),
        ("psk_" + "x" * 40, f"psk_{HIDDEN}"),
        (f"got {JWT}.", f"got {HIDDEN}"),
        (f"Authorization: Bearer {JWT}", f"Authorization: Bearer {HIDDEN}"),
        ("authorization: hunter2", f"authorization: {HIDDEN}"),
        ("{'authorization': 'Basic dTpw'}", f"{{'authorization': 'Basic {HIDDEN}'}}"),
        ("(b'x-api-key', b'hunter2')", f"(b'x-api-key', b'{HIDDEN}')"),
        ("X-Vault-Token: hvs.CAESIJ1234567", f"X-Vault-Token: {HIDDEN}"),
        ("denied for hvs.CAESIJ1234567", f"denied for {HIDDEN}"),
        ("redis://user:hunter2@host:6379/0", f"redis://user:{HIDDEN}@host:6379/0"),
        (f"key:\n{PEM}\nend", f"key:\n{HIDDEN}\nend"),
        (PEM[:50], HIDDEN),
    ],
)
def test_credentials_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key psk_1a2b3c4d5e is revoked",
        "key:psk_1a2b3c4d5e",
        "expected an API key or a JWT as 'authorization: Bearer …'",
        "https://host:8200/v1/secret",
        "the author is a bearer of news",
        "http_port=8000 grpc_port=8001",
        "file:/run/secrets/audit.key, vault:secret/penstock#audit",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert redacted(text) == text


@given(st.text(), st.text())
def test_a_key_is_hidden_wherever_it_stands(before: str, after: str) -> None:
    shown = redacted(f"{before} {KEY} {after}")
    assert KEY not in shown and KEY[15:] not in shown


def test_no_text_takes_long() -> None:
    """Each of these would keep a pattern busy that tries all ways to match."""
    for part in ("eyJ", "eyJaaaa.", "a:", "http://a:", "-----BEGIN PRIVATE KEY-----", "bearer "):
        assert redacted(part * 20_000)


@pytest.mark.parametrize("formatter", [LineFormatter(), Iso8601Formatter(), JsonFormatter("w")])
def test_log_lines_have_none(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(f"bad {KEY}")
    except ValueError as error:
        args = (f"Bearer {JWT}",)
        record = logging.LogRecord(
            "penstock",
            logging.ERROR,
            "f.py",
            1,
            "got %s",
            args,
            (ValueError, error, error.__traceback__),
        )
    record.__dict__["header"] = f"x-api-key: {KEY}"
    line = formatter.format(record)
    assert KEY[15:] not in line and JWT[10:] not in line
    assert line.count(HIDDEN) == 3
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["msg"] == f"got Bearer {HIDDEN}"
