"""How far the log goes: a small signed file that is replaced with each group. Without it nobody could tell that the
last records have been cut off."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.audit.lines import HEAD_DOMAIN, is_sealed, sealed
from penstock.audit.signing import Signer, Verifier

PURPOSE: Final = "head"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the last writer left."""

    log: str
    """Identity of the log, chosen when it was made."""
    seq: int
    """Number of the last record …"""
    last: str
    """… and its hash."""
    file: int
    """Number of the file that it is in …"""
    end: int
    """… and where it ends there."""
    checkpoint: int
    """Number of the last checkpoint."""
    checkpoint_ns: int
    """When that was."""
    key: str
    """Id of the key that signs; empty: nothing is signed."""
    signature: str
    hash: str

    def is_signed_by(self, verifier: Verifier) -> bool:
        """Whether the signature holds."""
        return verifier.signed(PURPOSE, self.signature, *_signed(self))


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """A head before it is signed."""

    log: str
    seq: int
    last: str
    file: int
    end: int
    checkpoint: int
    checkpoint_ns: int


def encode_head(reach: Reach, signer: Signer | None) -> bytes:
    """The head's line."""
    fields = msgspec.structs.asdict(reach)
    fields["key"] = signer.id if signer else ""
    fields["signature"] = signer.sign(PURPOSE, *_signed(reach)) if signer else ""
    return sealed(msgspec.json.encode(fields)[:-1], HEAD_DOMAIN)[0]


def decode_head(line: bytes) -> Head:
    """What the line says. Raises ValueError on anything but a whole, unchanged one."""
    if not is_sealed(line, HEAD_DOMAIN):
        raise ValueError("its hash is not that of its content")
    return _decoder.decode(line)


_decoder: Final = msgspec.json.Decoder(Head)


def _signed(reach: Reach | Head) -> tuple[str, ...]:
    numbers = (reach.seq, reach.file, reach.end, reach.checkpoint, reach.checkpoint_ns)
    return reach.log, reach.last, *map(str, numbers)
