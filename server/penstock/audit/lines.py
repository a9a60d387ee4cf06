"""A record as a line of JSON: `{"seq":…,"prev":"…","kind":"…","time":"…",…,"hash":"…"}`.

The hash is SHA-256 over the line's own bytes as far as the hash, so that no two ways to write the same thing have to be
told apart: each byte of a line is either hashed or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

Kind = Literal["open", "file", "key", "event", "checkpoint", "repair", "resumed"]
"""open: the log's first record. file: the first one of each further file. key: signs from here on. repair: an
unfinished line was cut off. resumed: records could not be written for a while."""

RECORD_DOMAIN: Final = b"penstock audit record v1\0"
HEAD_DOMAIN: Final = b"penstock audit head v1\0"
"""Hashed before the bytes, so that a line of one kind can't be passed off as another's."""

NO_HASH: Final = "0" * 64
"""What the first record follows."""
MAX_LINE_BYTES: Final = 256 << 10
"""No line is longer. Verifying keeps one line in memory."""

_BEFORE_HASH: Final = b',"hash":"'
_AFTER_HASH: Final = b'"}\n'
TAIL_BYTES: Final = len(_BEFORE_HASH) + 64 + len(_AFTER_HASH)
_NS_PER_S: Final = 1_000_000_000


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was read. Each kind has its own fields; the others are empty."""

    seq: int
    prev: str
    kind: Kind
    time: str
    hash: str

    # event
    action: str = ""
    outcome: str = ""
    principal: str = ""
    tenant: str = ""
    model: str = ""
    reason: str = ""
    request_id: str = ""
    client: str = ""
    details: Mapping[str, str] = {}

    # open, file, repair
    log: str = ""
    file: int = 0
    cut_bytes: int = 0
    digest: str = ""

    # key, checkpoint
    key: str = ""
    public: str = ""
    signature: str = ""
    endorsed_by: str = ""
    endorsement: str = ""

    # resumed
    lost: int = 0
    problem: str = ""

    @property
    def what(self) -> str:
        """What it is about, as readers are shown it: an event's action, else the kind."""
        return self.action or self.kind


_decoder: Final = msgspec.json.Decoder(Record)


def encode(seq: int, prev: str, kind: Kind, time_ns: int, fields: Any) -> tuple[bytes, str]:
    """The line of a record, and its hash. `fields`: a struct or dictionary with what its kind has."""
    rest = msgspec.json.encode(fields)
    comma = "," if len(rest) > 2 else ""
    middle = f'{kind}","time":"{timestamp(time_ns)}"{comma}'
    return sealed(begin(seq, prev) + middle.encode() + rest[1:-1], RECORD_DOMAIN)


def sealed(body: bytes, domain: bytes) -> tuple[bytes, str]:
    """An object without its closing brace as a line with its hash, and the hash."""
    digest = sha256(domain + body).hexdigest()
    return b"%b%b%b%b" % (body, _BEFORE_HASH, digest.encode(), _AFTER_HASH), digest


def is_sealed(line: bytes, domain: bytes = RECORD_DOMAIN) -> bool:
    """Whether the line ends with the hash of what is before it."""
    body = line[:-TAIL_BYTES]
    return sealed(body, domain)[0] == line


def decode(line: bytes) -> Record:
    """What a line says, right or wrong. Raises ValueError."""
    try:
        return _decoder.decode(line)
    except RecursionError:
        raise ValueError("nested too deep") from None


def begin(seq: int, prev: str) -> bytes:
    """What the line of the record of that number begins with, after the record of that hash."""
    return b'{"seq":%d,"prev":"%b","kind":"' % (seq, prev.encode())


def timestamp(time_ns: int) -> str:
    """RFC 3339 in UTC, to the nanosecond."""
    seconds, fraction = divmod(time_ns, _NS_PER_S)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache(4)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
