"""Shared memory that clients own: read and written by system calls, and never mapped.

A client may shrink its region at any time. Touching a mapping of what is gone ends the process (SIGBUS); a read that
comes back short is an error for the one request that asked for it. A tensor is copied once either way.
"""

from __future__ import annotations

import os
import stat
import weakref
from typing import Final

from penstock.errors import InvalidRequest, NotFound
from penstock.types import Buffer, RegionRef

FOLDER: Final = "/dev/shm/"
"""Where Linux has POSIX shared memory."""

RESERVED_PREFIX: Final = "triton_python_backend_shm_region_"
_MAX_KEY_BYTES: Final = 255
_MAX_IN_TEXT: Final = 300


class Region:
    """A registered part of a client's file. Open as long as somebody holds it, registered or not."""

    __slots__ = ("__weakref__", "_fd", "byte_size", "file", "key", "name", "offset")

    def __init__(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region: `byte_size` bytes from `offset` on of the shared memory that the client calls `key`.

        Raises InvalidRequest, NotFound.
        """
        self.name: Final = name
        self.key: Final = key
        self.offset: Final = offset
        self.byte_size: Final = byte_size
        self._fd: Final = _open(name, key)
        weakref.finalize(self, os.close, self._fd).atexit = False
        found = os.fstat(self._fd)
        self.file: Final = (found.st_dev, found.st_ino)
        """Which memory it lies in, whatever it is called."""
        size_bytes = found.st_size
        if offset < 0 or byte_size < 1 or offset + byte_size > size_bytes:
            raise InvalidRequest(
                f"failed to register shared memory region '{name}': invalid args: expected at least"
                f" 1 byte within the {size_bytes} bytes of '{key}', got byte_size {byte_size} at"
                f" offset {offset}"
            )

    def check(self, ref: RegionRef) -> None:
        """Raises InvalidRequest where a request names what is not in the region, or not in its file any more."""
        if not 0 <= ref.offset < self.byte_size:
            raise InvalidRequest(f"Invalid offset for shared memory region: '{self.name}'")
        if ref.byte_size < 0 or ref.offset + ref.byte_size > self.byte_size:
            raise InvalidRequest(
                f"Invalid offset + byte size for shared memory region: '{self.name}'"
            )
        end = self.offset + ref.offset + ref.byte_size
        if os.fstat(self._fd).st_size < end:
            raise self._shrunk(end)

    def read(self, ref: RegionRef) -> bytes:
        """The bytes there. Raises InvalidRequest where the client has shrunk its file."""
        data = bytearray(ref.byte_size)
        self.read_into(memoryview(data), ref)
        return bytes(data)

    def read_into(self, view: memoryview, ref: RegionRef) -> None:
        """Copy the bytes there into `view`, which has their size. Raises as `read`; what is missing is zeros then."""
        done = self.read_some(view, ref)
        if done < len(view):
            # what lies in a slab from earlier requests is nobody else's to see
            view[done:] = bytes(len(view) - done)
            raise self._shrunk(self.offset + ref.offset + ref.byte_size)

    def read_some(self, view: memoryview, ref: RegionRef) -> int:
        """As `read_into`, but for the error: how many bytes there were."""
        done = 0
        while done < len(view):
            # one call reads at most 2 GiB
            count = os.preadv(self._fd, [view[done:]], self.offset + ref.offset + done)
            if not count:
                break
            done += count
        return done

    def write(self, data: Buffer, ref: RegionRef) -> None:
        """Copy `data`, no longer than what `ref` names, there. Raises InvalidRequest where that can't be written."""
        view = memoryview(data)
        start = self.offset + ref.offset
        # writing over the end would make the file longer again
        if os.fstat(self._fd).st_size < start + len(view):
            raise self._shrunk(start + len(view))
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], start + done)
        except OSError as error:
            raise InvalidRequest(
                f"shared memory region '{self.name}' can't be written: {error.strerror}"
            ) from error

    def _shrunk(self, end: int) -> InvalidRequest:
        return InvalidRequest(
            f"shared memory region '{self.name}' has been made smaller since it was registered:"
            f" expected {end} bytes in '{self.key}', it has {os.fstat(self._fd).st_size}"
        )


class RegionInput:
    """An input's bytes where the client has put them, to be copied into the slab when its batch is made.

    It has a length as other buffers have; its bytes may change or vanish until they are read.
    """

    __slots__ = ("_ref", "_region")

    def __init__(self, region: Region, ref: RegionRef) -> None:
        self._region = region
        self._ref = ref

    def __len__(self) -> int:
        return self._ref.byte_size

    def read_into(self, view: memoryview) -> None:
        """Copy all bytes into `view`. Raises InvalidRequest where some are gone."""
        self._region.read_into(view, self._ref)

    def __bytes__(self) -> bytes:
        """The bytes as they are now; zeros where they are gone."""
        data = bytearray(self._ref.byte_size)
        self._region.read_some(memoryview(data), self._ref)
        return bytes(data)


Input = Buffer | RegionInput
"""An input of a request on its way to a slab."""


def no_such_key(key: str) -> NotFound:
    """The error of who names memory that is not there, or not for him."""
    return NotFound(
        f"Unable to open shared memory region: '{key}': there is none of that key where the"
        " server runs"
    )


def _open(name: str, key: str) -> int:
    """The descriptor of a client's shared memory, and of nothing else. Raises InvalidRequest, NotFound."""
    file = _file_name(name, key)
    try:
        # not through a link to some other file, and without waiting for what may be a pipe
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(FOLDER + file, flags)
    except FileNotFoundError:
        raise no_such_key(key) from None
    except OSError as error:
        raise InvalidRequest(
            f"Unable to open shared memory region: '{key}': {error.strerror}"
        ) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidRequest(
            f"Unable to open shared memory region: '{key}': it is no shared memory"
        )
    return fd


def _file_name(name: str, key: str) -> str:
    """The key as a file's name, as `shm_open` takes it."""
    file = key.lstrip("/")
    if file.startswith(RESERVED_PREFIX):
        raise InvalidRequest(
            f"cannot register shared memory region '{name[:_MAX_IN_TEXT]}' with key"
            f" '{key[:_MAX_IN_TEXT]}' as the key contains the reserved prefix '{RESERVED_PREFIX}'"
        )
    if (
        file in ("", ".", "..")
        or "/" in file
        or "\0" in file
        or len(file.encode(errors="surrogatepass")) > _MAX_KEY_BYTES
    ):
        raise InvalidRequest(
            f"Unable to open shared memory region: '{key[:_MAX_IN_TEXT]}': expected the name of"
            f" POSIX shared memory, up to {_MAX_KEY_BYTES} bytes with no slash but the first"
        )
    return file
