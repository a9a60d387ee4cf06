"""Whether a webhook comes from the MLflow that knows the secret, as Standard Webhooks have it. No I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from penstock.errors import Unauthenticated

SIGNATURE: Final = b"x-mlflow-signature"
DELIVERY: Final = b"x-mlflow-delivery-id"
TIMESTAMP: Final = b"x-mlflow-timestamp"
VERSION: Final = b"v1"
TOLERANCE_S: Final = 300.0
"""How old a webhook may be: somebody may have kept it to send it again."""
MAX_HEADER_BYTES: Final = 4096

_REFUSED: Final = "the webhook is not signed as it should be"


def check_headers(*, signature: bytes, delivery: bytes, timestamp: bytes) -> None:
    """What can be seen without the secret. Raises Unauthenticated; its reason says exactly what is wrong."""
    if not signature or not delivery or not timestamp:
        raise Unauthenticated(_REFUSED, "a header of the signature is missing")
    if max(map(len, (signature, delivery, timestamp))) > MAX_HEADER_BYTES:
        raise Unauthenticated(_REFUSED, "a header of the signature is too long")
    if not timestamp.isdigit() or len(timestamp) > 15:
        raise Unauthenticated(_REFUSED, "its timestamp is no number")


def check_webhook(
    secret: bytes, *, signature: bytes, delivery: bytes, timestamp: bytes, body: bytes, now_s: float
) -> None:
    """Raises Unauthenticated; its reason says exactly what is wrong."""
    check_headers(signature=signature, delivery=delivery, timestamp=timestamp)
    if not secret.strip():
        # it was replaced while the server runs: anybody could sign with it
        raise Unauthenticated(_REFUSED, "the secret is blank")
    content = b".".join((delivery, timestamp, body))
    expected = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest())
    # of several signatures, as while a secret is changed, one has to fit
    given = (each.partition(b",") for each in signature.split(b" "))
    fits = [
        hmac.compare_digest(value, expected) for version, _, value in given if version == VERSION
    ]
    if not any(fits):
        raise Unauthenticated(_REFUSED, "its signature does not fit")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise Unauthenticated(_REFUSED, "it is too old, or from the future")
