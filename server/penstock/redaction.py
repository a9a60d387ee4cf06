"""What looks like a credential, taken out of texts that go to a log. The last line of defence: nobody should have
put it there, but errors quote what clients send."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "[hidden]"

_SECRET: Final = re.compile(
    # our API keys keep their id, by which they are found again
    r"(?P<key>psk_[A-Za-z0-9]{1,64}_)[A-Za-z0-9_~+/=-]+"
    r"|(?P<bare>psk_)[A-Za-z0-9_~+/=.-]{24,}"
    # JWTs: header.payload.signature, of which the first two are base64 of `{"`
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*"
    # Vault's service, batch and recovery tokens
    r"|\bhv[sbr]\.[A-Za-z0-9_-]{8,}"
    # the values of headers and options that carry credentials
    r"|(?P<head>(?i:\b(?:authorization|x-api-key|x-vault-token|proxy-authorization|cookie)['\"]?\s*[:=,]\s*(?:b?['\"])?"
    r"(?:(?:bearer|basic|token)\s+)?))(?!(?i:bearer|basic|token)\b)[^\s'\",;…]+"
    r"|(?P<scheme>(?i:\b(?:bearer|basic)\s+))[A-Za-z0-9_~+/=.-]{12,}"
    # passwords in URLs
    r"|(?P<url>[a-z][a-z0-9+.-]{0,30}://[^\s/:@'\"]{0,256}:)[^\s/@'\"]+(?=@)"
    r"|-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_HINTS: Final = re.compile(
    r"psk_|eyJ|hv[sbr]\.|://|-----BEGIN|(?i:auth|x-api-key|vault|cookie|bearer|basic)"
)


def redacted(text: str) -> str:
    """The text with `[hidden]` in place of what looks like a credential."""
    if _HINTS.search(text) is None:
        return text
    return _SECRET.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    return next((kept for kept in found.groups() if kept), "") + HIDDEN
