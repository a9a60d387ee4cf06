"""When slabs are pinned, over something that counts in CUDA's place."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from penstock.workers.pinning import (
    CudaRegistrar,
    Pinning,
    PinningFailed,
    cuda_registrar,
    forget_in_mapped_runtimes,
)
from penstock.workers.slab import PAGE_BYTES, Slab


class Registered:
    """In CUDA's place: it knows what is pinned."""

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.limit_bytes = limit_bytes
        self.pinned: dict[int, int] = {}
        self.looked = 0

    def find(self) -> Registered:
        self.looked += 1
        return self

    def register(self, address: int, nbytes: int) -> None:
        assert address % PAGE_BYTES == 0
        # mapped, and this slab's
        assert ctypes.string_at(address, 5) in (b"hello", bytes(5))
        if nbytes > self.limit_bytes:
            raise PinningFailed("cudaHostRegister says 2")
        self.pinned[address] = nbytes

    def unregister(self, address: int) -> None:
        # still mapped
        ctypes.string_at(address, 1)
        del self.pinned[address]


@pytest.fixture
def cuda() -> Registered:
    return Registered()


def test_a_slab_is_pinned_while_it_is_mapped(cuda: Registered) -> None:
    ours = Slab.create(PAGE_BYTES)
    ours.view[:5] = b"hello"
    slab = Slab(os.dup(ours.fd), Pinning(cuda.find).follow())
    assert list(cuda.pinned.values()) == [PAGE_BYTES]
    (before,) = cuda.pinned
    # the gateway lets it grow
    ours.ensure(3 * PAGE_BYTES)
    slab.refresh()
    assert list(cuda.pinned.values()) == [3 * PAGE_BYTES]
    assert before not in cuda.pinned
    # the worker does
    slab.ensure(7 * PAGE_BYTES)
    assert list(cuda.pinned.values()) == [7 * PAGE_BYTES]
    slab.close()
    assert cuda.pinned == {}
    ours.close()


def test_two_slabs_are_pinned_each_by_itself(cuda: Registered) -> None:
    pinning = Pinning(cuda.find)
    slabs = []
    for _ in range(2):
        ours = Slab.create(PAGE_BYTES)
        slabs.append(Slab(os.dup(ours.fd), pinning.follow()))
        ours.close()
    assert (len(cuda.pinned), cuda.looked) == (2, 1)
    slabs[0].close()
    assert len(cuda.pinned) == 1
    slabs[1].close()
    assert cuda.pinned == {}


def test_what_can_not_be_pinned_works_on(caplog: pytest.LogCaptureFixture) -> None:
    cuda = Registered(limit_bytes=PAGE_BYTES)
    ours = Slab.create(PAGE_BYTES)
    slab = Slab(os.dup(ours.fd), Pinning(cuda.find).follow())
    slab.ensure(2 * PAGE_BYTES)
    slab.ensure(5 * PAGE_BYTES)
    slab.view[:5] = b"hello"
    assert bytes(ours.view[:5]) == b"hello"
    assert cuda.pinned == {}
    (warning,) = caplog.messages
    assert warning == (
        "slabs are not pinned, so copies to the GPU take longer: cudaHostRegister says 2"
    )
    slab.close()
    ours.close()


def test_codes_of_the_runtime() -> None:
    """Alone, as the library gives them, or in a tuple, as cuda.bindings does."""
    calls: list[tuple[int, ...]] = []

    def register(*arguments: int) -> int:
        calls.append(arguments)
        return 0

    forgotten: list[str] = []

    def forget() -> None:
        forgotten.append("once")

    CudaRegistrar(register, lambda address: (0,), forget).register(4096, 10)
    CudaRegistrar(register, lambda address: (0,), forget).unregister(4096)
    assert calls == [(4096, 10, 0)]
    assert forgotten == []
    with pytest.raises(PinningFailed, match="cudaHostUnregister says 713"):
        CudaRegistrar(register, lambda address: (713,), forget).unregister(4096)
    # else the next kernel's check would find it
    assert forgotten == ["once"]


def test_errors_are_taken_out_of_each_runtime_that_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Library:
        def __init__(self, path: str) -> None:
            self.path = path

        def cudaGetLastError(self) -> int:
            asked.append(self.path)
            return 0

    monkeypatch.setattr(ctypes, "CDLL", Library)
    maps = tmp_path / "maps"
    maps.write_text(
        "7f0-7f1 r-xp 00000000 08:01 11 /opt/my torch/libcudart-1a2b.so.12\n"
        "7f1-7f2 r--p 00001000 08:01 11 /opt/my torch/libcudart-1a2b.so.12\n"
        "7f3-7f4 r-xp 00000000 08:01 12 /usr/lib/libcudart.so.13\n"
        "7f5-7f6 r-xp 00000000 08:01 13 /usr/lib/libc.so.6\n"
        "7f7-7f8 rw-p 00000000 00:00 0 [heap]\n"
        "7f8-7f9 rw-p 00000000 00:00 0\n"
    )
    forget_in_mapped_runtimes(maps)
    assert asked == ["/opt/my torch/libcudart-1a2b.so.12", "/usr/lib/libcudart.so.13"]
    forget_in_mapped_runtimes()


@pytest.mark.gpu
def test_real_memory_is_pinned(caplog: pytest.LogCaptureFixture) -> None:
    ours = Slab.create(PAGE_BYTES)
    slab = Slab(os.dup(ours.fd), Pinning(cuda_registrar).follow())
    slab.ensure(64 * PAGE_BYTES)
    slab.close()
    ours.close()
    assert caplog.messages == []
