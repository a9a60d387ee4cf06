"""What a client may read of a foreign text: no path of this machine, no traceback, no name of our own code.

Models, libraries and the operating system write such things into their errors, and load errors say where they looked.
The whole text is for who runs the server: it goes to the log, under a reference that the client is told.
"""

from __future__ import annotations

import logging
import re
import secrets
from functools import lru_cache
from typing import Final

log = logging.getLogger(__name__)

HIDDEN: Final = "…"
"""Stands where something was left out."""
MAX_REMEMBERED: Final = 256
"""Texts whose references are remembered, so that an error that comes again is not logged again."""

_SEGMENT: Final = r"[^\s/'\"`<>|,;()\[\]{}]+"
_ROOTS: Final = (
    "bin|boot|data|dev|etc|home|lib|lib64|media|mnt|nix|opt|proc|root|run|sbin|snap|srv|sys|tmp|usr"
    "|var|workspace|Applications|Library|Users|Volumes"
)
"""Folders that a machine has: their names alone make a path."""
# not within a relative path, nor behind a URL's host
_PATH: Final = re.compile(
    rf"file:/+{_SEGMENT}(?:/+{_SEGMENT})*/?"
    rf"|(?<![\w./~%-])(?!(?<=\w:)//)~?/+(?:{_SEGMENT}/+{_SEGMENT}(?:/+{_SEGMENT})*/?|(?:{_ROOTS})(?![\w/-])/?)"
    rf"|~/{_SEGMENT}"
)
_PLACE: Final = re.compile(r"(?::\d{1,9}){0,2}[:.]{0,3}$")
"""What follows a path: line and column, and the end of the sentence."""
_PLACE_CHARACTERS: Final = 24
"""As many as it has at most: texts may be long, and made to take long."""
_CONFIGURATION: Final = re.compile(r"^(config|labels?)[\w-]*\.(pbtxt|ya?ml|json|txt)$")
_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
_FRAME: Final = re.compile(r'File "[^"]*", line \d+(?:, in \S+)?')
_INSTALLED: Final = re.compile(rf"\b(?:site|dist)-packages(?:/{_SEGMENT})*")
_OUR_CODE: Final = re.compile(r"\bpenstock(?:_[a-z]+)?\.(?!toml\b|db\b)\w+(?:\.\w+)*")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_SIGNS: Final = ("/", "Traceback", "penstock", " at 0x", "-packages", 'File "')
"""No text is worth a look that has none of them."""


def told(text: str) -> str:
    """The text as a client may read it. Where something is left out, the whole is logged under the reference in it."""
    if not any(sign in text for sign in _SIGNS):
        return text
    return _told(text)


@lru_cache(maxsize=MAX_REMEMBERED)
def _told(text: str) -> str:
    shown = without_inner_parts(text)
    if shown == text:
        return text
    reference = secrets.token_hex(4)
    log.warning("[%s] a client was told less than: %s", reference, text)
    return f"{shown} [{reference} in the server's log]"


def without_inner_parts(text: str) -> str:
    """The text without them. What a client knows anyway stays of a path: version folder and file of a model."""
    text = _FRAME.sub(HIDDEN, _TRACEBACK.sub(HIDDEN, text))
    text = _PATH.sub(_known_end, _OUR_CODE.sub(HIDDEN, text))
    return _ADDRESS.sub("", _INSTALLED.sub(HIDDEN, text))


def _known_end(found: re.Match[str]) -> str:
    path, ending = found[0], found[0][-_PLACE_CHARACTERS:]
    place = "".join(_PLACE.findall(ending)[:1])
    _, _, parents_and_name = path.removesuffix(place).rstrip("/").rpartition("//")
    folder, _, name = parents_and_name.rpartition("/")
    folder = folder.rpartition("/")[2]
    if _CONFIGURATION.match(name):
        return f"{name}{place}"
    if folder.isdecimal():
        return f"{folder}/{name}{place}"
    return f"{HIDDEN}/{name}{place}" if name.isdecimal() else HIDDEN + place
