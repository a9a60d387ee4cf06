"""The process that writes records: `python -m penstock.capture.main`, a child of the supervisor.

It reads as fast as it can write. What it does not read waits in the gateway, which drops what would be too much.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from penstock.capture.lake import prepare, sweep
from penstock.capture.messages import SOCKET, Frames, Written, entry_of, frame
from penstock.capture.redaction import Redaction
from penstock.capture.writer import Published, Writer, files_alone
from penstock.capture_config import CaptureSettings
from penstock.config import Settings
from penstock.logs import configure_logging
from penstock.secrets.source import SecretSource
from penstock.workers.gateway_environment import SETTINGS_FILE

log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 20
LAST_READ_S: Final = 2.0
"""When it is told to end, the gateway has ended before, and what it has sent is here."""


class Server:
    """Reads what a gateway says, one gateway at a time, until it is told to end."""

    def __init__(self, writer: Writer, path: Path) -> None:
        self._writer = writer
        self._selector = selectors.DefaultSelector()
        with contextlib.suppress(FileNotFoundError):
            # of a writer that was killed
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._gateway: socket.socket | None = None
        self._frames = Frames()
        self._told: Written | None = None
        self._stopping = False

    def stop(self, number: int, stack: FrameType | None) -> None:
        """For a signal: write what is there, and end."""
        self._stopping = True
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"\0")

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            for key, _ in self._selector.select(self._writer.due_in_s):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._gateway:
                    self._read()
            self._writer.finish_due()
            self._tell()
        self._read_rest()
        self._writer.finish_all()
        self._tell()

    def _accept(self) -> None:
        gateway, _ = self._listener.accept()
        if self._gateway is not None:
            # it has crashed: the next one is here before its end was seen
            self._read_rest()
        if self._gateway is not None:
            self._lose()
        self._gateway = gateway
        self._frames = Frames()
        self._told = None
        self._selector.register(gateway, selectors.EVENT_READ)

    def _read(self) -> bool:
        """Take what has come; whether more may."""
        assert self._gateway is not None
        try:
            data = self._gateway.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._lose()
            return False
        for each in self._frames.feed(data):
            self._take(each)
        return True

    def _take(self, data: bytes) -> None:
        try:
            self._writer.take(entry_of(data))
        except (msgspec.DecodeError, KeyError):
            log.exception("a bug: what the gateway says of a captured request is not understood")

    def _read_rest(self) -> None:
        if self._gateway is not None:
            self._gateway.settimeout(LAST_READ_S)
            with contextlib.suppress(TimeoutError):
                while self._read():
                    pass

    def _lose(self) -> None:
        """The gateway has ended. What it captured is there for all to see at once."""
        assert self._gateway is not None
        self._selector.unregister(self._gateway)
        self._gateway.close()
        self._gateway = None
        self._writer.forget_tables()
        self._writer.finish_all()

    def _tell(self) -> None:
        if self._gateway is None or self._writer.written == self._told:
            return
        self._told = self._writer.written
        # a few bytes: they have room, unless nobody reads them
        with contextlib.suppress(OSError):
            self._gateway.send(frame(self._told), socket.MSG_DONTWAIT)


def redaction_of(settings: CaptureSettings, secret_source: SecretSource) -> Redaction:
    """As the settings say."""
    ref = settings.hash_key
    key = None if ref is None else lambda: secret_source.get(ref).reveal()
    return Redaction(settings.tenant_names, key)


def published(settings: CaptureSettings) -> Published:
    """What is told of complete files."""
    if settings.format == "parquet" or settings.folder is None:
        return files_alone
    from penstock.capture.delta import DeltaTables

    return DeltaTables(settings.folder)


def main() -> int:
    """Run the writer that the supervisor has described in this process's environment."""
    settings = Settings.read(Path(os.environ[SETTINGS_FILE]))
    configure_logging(settings.log_settings, sys.stderr)
    capture, run_dir = settings.capture, settings.run_dir
    assert capture.folder is not None and run_dir is not None, "the supervisor has looked"
    prepare(capture.folder)
    if removed := sweep(capture.folder):
        log.warning(
            "removed %d files of captured requests that a crash has left unfinished", removed
        )
    with contextlib.closing(SecretSource(settings.secrets)) as secret_source:
        writer = Writer(capture, redaction_of(capture, secret_source), published(capture))
        server = Server(writer, run_dir / SOCKET)
        signal.signal(signal.SIGTERM, server.stop)
        # Ctrl-C reaches the whole foreground group; the supervisor says when to stop
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
