"""Why something can't be asked, in a few words: what lies below errors that quote all that they came through."""

from __future__ import annotations

import errno
import socket
import ssl
import textwrap
from collections.abc import Iterator
from typing import Final

from penstock.logs import without_controls
from penstock.redaction import redacted

MAX_TEXT: Final = 300
MAX_REASON: Final = 120
_UNREACHABLE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def reason_of(error: BaseException) -> str:
    """What the network, the disk or the database said first; of other errors the first sentence."""
    below = list(_below(error, set()))
    if network := network_reason(error):
        return network
    for each in below:
        if isinstance(each, OSError) and each.errno is not None and each.strerror:
            return each.strerror.lower()
    # a KeyError's text is a key
    first = next((each for each in below if " " in str(each)), error)
    return brief(first, MAX_REASON).split(". ")[0]


def network_reason(error: BaseException) -> str:
    """What the network said first; empty: it is nothing of the network's."""
    for each in _below(error, set()):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate does not hold: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            why = str(getattr(each, "reason", None) or "not what was expected")
            return f"no TLS: {why.lower().replace('_', ' ')}"
        if isinstance(each, TimeoutError):
            return "no answer in time"
        if isinstance(each, OSError) and _is_networks(each) and each.strerror:
            return each.strerror.lower()
    return ""


def _is_networks(error: OSError) -> bool:
    return isinstance(error, (ConnectionError, socket.gaierror)) or error.errno in _UNREACHABLE


def brief(error: BaseException, width: int = MAX_TEXT) -> str:
    """Its text in one line, without credentials, and cut between words."""
    text = without_controls(redacted(" ".join(str(error).split())))
    return textwrap.shorten(text, width, placeholder=" …") or type(error).__name__


def _below(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """All that led to it, the first ones first."""
    if id(error) in seen:
        return
    seen.add(id(error))
    # urllib3's errors have theirs as an attribute, those of requests as an argument
    inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
    for each in inner:
        if isinstance(each, BaseException):
            yield from _below(each, seen)
    yield error
