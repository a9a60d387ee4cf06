"""What all messages between processes are: small, frozen, one datagram each; tensors cross in slabs, never in here.

    supervisor ⇄ gateway    `supervisor_messages`, over the control socket
    gateway    → worker     `worker_commands`, over one socket a worker
    gateway    ← worker     `worker_events`, over the same

All sockets are Unix SOCK_SEQPACKET: a message is a datagram, end of file is seen, descriptors ride along.
"""

from __future__ import annotations

from typing import Final

import msgspec

MESSAGE_LIMIT_BYTES: Final = 32 * 1024
"""Largest datagram. Some must fit into a socket's send buffer (208 KiB by default) at once; `channel` sends larger
messages in a memfd of their own."""


def sendable(text: str) -> str:
    """The text, with lone surrogates, which no message can carry, as escapes. Models' errors may have them."""
    return text.encode(errors="backslashreplace").decode()


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


encode = msgspec.msgpack.Encoder().encode
