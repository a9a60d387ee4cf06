"""What a signed release says of itself: which version of which model it is, and the serial number that orders them."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.errors import SignatureInvalid, WrongModel

FILENAME: Final = "release.json"
"""In the version's folder. A signature covers it as it covers the model."""
MAX_BYTES: Final = 64 * 1024


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release of one version."""

    model: str
    version: int
    serial: int
    """Rises with each signature of the model."""
    created: str = ""
    """For people."""


def parse_release(content: bytes, model: str, version: int) -> Release:
    """Read it. Raises SignatureInvalid, and WrongModel where it is another one's."""
    try:
        release = msgspec.json.decode(content, type=Release)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SignatureInvalid(f"{FILENAME} can't be read: {error}") from error
    if (release.model, release.version) != (model, version):
        raise WrongModel(
            f"{FILENAME} is that of version {release.version} of the model {release.model[:200]!a}; "
            f"expected version {version} of {model!a}"
        )
    if release.serial < 0:
        raise SignatureInvalid(f"{FILENAME}: serial is {release.serial}; expected 0 or more")
    return release
