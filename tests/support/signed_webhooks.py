"""Webhooks signed as MLflow signs them."""

from __future__ import annotations

import base64
import hashlib
import hmac

SECRET = b"the secret"
BODY = b'{"entity": "model_version_alias", "action": "created"}'


def sign(
    body: bytes = BODY, delivery: str = "d1", at: str = "1000", secret: bytes = SECRET
) -> bytes:
    content = f"{delivery}.{at}.".encode() + body
    return b"v1," + base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest())
