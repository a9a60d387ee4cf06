"""Secrets in files: who may read and write them is looked at before what they say."""

from __future__ import annotations

import logging
import os
import stat
from typing import Final

from penstock.errors import ConfigError
from penstock.secrets.secret import Secret

MAX_BYTES: Final = 64 << 10

_log = logging.getLogger(__name__)


class SecretFiles:
    """Reads files anew each time: they are small, and a file that was replaced need not look newer."""

    def __init__(self, *, strict: bool) -> None:
        self._strict: Final = strict
        self._warned: Final[set[str]] = set()

    def read(self, path: str) -> Secret:
        """What is in it, without the line's end where it is text.

        Raises ConfigError for a file that isn't there, is empty or too large, or that others may write.
        """
        try:
            # a FIFO would keep us waiting
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"file:{path} can't be read: {reason}") from None
        try:
            self._check(path, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"file:{path} can't be read: {error.strerror}") from None
        finally:
            os.close(descriptor)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"file:{path} is over {MAX_BYTES} bytes, too large for a secret")
        value = without_line_end(content)
        if not value:
            raise ConfigError(f"file:{path} is empty")
        return Secret(value)

    def _check(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"file:{path} is no ordinary file")
        if status.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"file:{path} belongs to user {status.st_uid}, who could change it")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"file:{path} may be written by others: chmod 600 {path}")
        if not status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            return
        message = f"file:{path} may be read by others: chmod 600 {path}"
        if self._strict:
            raise ConfigError(message)
        if path not in self._warned:
            self._warned.add(path)
            _log.warning("%s", message)


def without_line_end(content: bytes) -> bytes:
    """The one at the end, which editors and `echo` add to text. Bytes that are no text are a key: left as they are."""
    for line_end in (b"\r\n", b"\n"):
        if content.endswith(line_end) and _is_text(content):
            return content.removesuffix(line_end)
    return content


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
