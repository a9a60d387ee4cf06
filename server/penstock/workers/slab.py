"""Slabs: the shared memory that tensors cross in between gateway and worker.

A slab is an anonymous memfd that both map. It has no name, so nothing stays behind however the processes end. It can
grow and never shrinks (sealed), so that no misbehaving worker can make the gateway's mapping fault.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from typing import Final

from penstock.errors import Unavailable

ALIGNMENT_BYTES: Final = 64
"""Tensors begin on cache-line borders, which is also what vector instructions like best."""

PAGE_BYTES: Final = mmap.PAGESIZE

# fcntl has these constants only from Python 3.12 on
F_ADD_SEALS: Final = 1033
F_SEAL_SHRINK: Final = 0x0002


def align(offset: int) -> int:
    """The next multiple of ALIGNMENT_BYTES."""
    return (offset + ALIGNMENT_BYTES - 1) & -ALIGNMENT_BYTES


class Slab:
    """A mapped memfd. Owns the descriptor; the mapping lives as long as any view of it."""

    def __init__(self, fd: int, mapped: Callable[[memoryview], None] | None = None) -> None:
        """`mapped` hears of each mapping while the one before is still there, and of the end, with no bytes."""
        self.fd: Final = fd
        self._mapped = mapped
        self.size_bytes = 0
        self.view = memoryview(b"")
        self.refresh()

    @classmethod
    def create(cls, size_bytes: int) -> Slab:
        """A new slab of at least this size. Raises Unavailable when the machine has no memory for it."""
        fd = os.memfd_create("penstock-slab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _extend(fd, 0, size_bytes)
            fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def ensure(self, size_bytes: int) -> None:
        """Grow to at least this size, by doubling, so that growing is rare. Views taken before stay good."""
        if size_bytes > self.size_bytes:
            _extend(self.fd, self.size_bytes, max(size_bytes, 2 * self.size_bytes))
            self.refresh()

    def refresh(self) -> None:
        """Map all of the memfd, which the other side may have grown."""
        size_bytes = os.fstat(self.fd).st_size
        if size_bytes != self.size_bytes:
            # the old mapping is not closed: views of it may still be in use, and it goes with the last of them
            view = memoryview(mmap.mmap(self.fd, size_bytes))
            if self._mapped is not None:
                self._mapped(view)
            self.view = view
            self.size_bytes = size_bytes

    def close(self) -> None:
        """Close the descriptor and drop the mapping."""
        if self._mapped is not None:
            self._mapped(memoryview(b""))
        self.view = memoryview(b"")
        self.size_bytes = 0
        os.close(self.fd)


def _extend(fd: int, old_bytes: int, new_bytes: int) -> None:
    """Reserve memory now: a sparse file would fault (SIGBUS) later, when there is none."""
    rounded = -(-new_bytes // PAGE_BYTES) * PAGE_BYTES
    try:
        os.posix_fallocate(fd, old_bytes, rounded - old_bytes)
    except OSError as error:
        raise Unavailable(
            f"no memory for a batch of {new_bytes} bytes: {os.strerror(error.errno or 0)}"
        ) from error
