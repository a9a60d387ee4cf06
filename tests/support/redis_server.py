"""A real `redis-server` on a Unix socket, which keeps nothing, and can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from supervised import eventually


class RedisServer:
    """Ends with `close`."""

    def __init__(self, *, password: str = "", flags: tuple[str, ...] = ()) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "the tests need Debian's redis-server"
        self._folder = tempfile.TemporaryDirectory(prefix="pr-")
        self.folder = Path(self._folder.name)
        self._socket = self.folder / "s"
        self._command = [
            *(program, "--port", "0", "--unixsocket", str(self._socket), "--save", ""),
            *("--appendonly", "no", "--dir", str(self.folder), *flags),
        ]
        if password:
            self._command += ["--requirepass", password]
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, without anything that it knew before."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            eventually(self._answers, "redis-server does not start")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        """Have it take connections, and answer nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stop`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._socket))
            except OSError:
                return False
            client.sendall(b"PING\r\n")
            return client.recv(100) != b""
