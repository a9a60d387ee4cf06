"""A socket for messages and descriptors: one datagram a message, larger ones in a memfd that rides along."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from penstock.workers.message import MESSAGE_LIMIT_BYTES, Message, encode

IN_MEMFD: Final = b"\xc1"
"""Stands for a message that lies in the memfd beside it. MessagePack never uses this byte."""

MAX_DESCRIPTORS: Final = 2
RECEIVE_FLAGS: Final = int(socket.MSG_CMSG_CLOEXEC)
"""A number, for `|` of the socket module's enumerations takes longer than the receiving."""
ANCILLARY_BYTES: Final = socket.CMSG_LEN(MAX_DESCRIPTORS * array("i").itemsize)


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a SOCK_SEQPACKET pair. Owns its socket; blocking or not is the socket's own setting."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """Take over an inherited descriptor, and let no child inherit it again."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """For event loops and for handing the end to a child."""
        return self._socket.fileno()

    def setblocking(self, blocking: bool) -> None:
        """As `socket.setblocking`."""
        self._socket.setblocking(blocking)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message, with descriptors that stay the caller's own.

        Raises ChannelClosed when nobody reads any more, BlockingIOError when a non-blocking channel's buffer is full.
        """
        self.send_encoded(encode(message), descriptors)

    def send_encoded(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """As `send`, of a message that is encoded already."""
        if len(data) <= MESSAGE_LIMIT_BYTES:
            self._send(data, descriptors)
            return
        memfd = os.memfd_create("penstock-message", os.MFD_CLOEXEC)
        try:
            with open(memfd, "wb", closefd=False) as file:
                file.write(data)
            self._send(IN_MEMFD, (memfd, *descriptors))
        finally:
            os.close(memfd)

    def receive(self, flags: int = 0) -> tuple[bytes, list[int]]:
        """The next message's bytes, and the descriptors that came with it, which are the caller's from now on.
        `flags` as of `recv`.

        Raises ChannelClosed at the end, BlockingIOError when a non-blocking channel has nothing.
        """
        try:
            # not `socket.recv_fds`: what it receives, any child process would inherit
            data, ancillary, _, _ = self._socket.recvmsg(
                MESSAGE_LIMIT_BYTES, ANCILLARY_BYTES, RECEIVE_FLAGS | flags
            )
        except ConnectionError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        descriptors = _descriptors(ancillary) if ancillary else []
        if data == IN_MEMFD and descriptors:
            memfd = descriptors.pop(0)
            size = os.fstat(memfd).st_size
            try:
                data = os.pread(memfd, size, 0)
            finally:
                os.close(memfd)
        return data, descriptors

    def shutdown(self) -> None:
        """Both ends see the end of the channel, also who waits for a message now."""
        with suppress(OSError):
            # it may be closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; the other one sees the end of the channel."""
        self._socket.close()

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        try:
            if descriptors:
                socket.send_fds(self._socket, [data], list(descriptors))
            else:
                self._socket.send(data, socket.MSG_NOSIGNAL)
        except ConnectionError as error:
            raise ChannelClosed from error


def _descriptors(ancillary: Sequence[tuple[int, int, Any]]) -> list[int]:
    """The descriptors that came beside a message."""
    found = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
