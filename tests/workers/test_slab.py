"""Shared memory that grows under the feet of both sides."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from descriptors import none_left
from penstock.errors import Unavailable
from penstock.workers.slab import ALIGNMENT_BYTES, PAGE_BYTES, Slab, align


@pytest.mark.parametrize(("offset", "aligned"), [(0, 0), (1, 64), (63, 64), (64, 64), (65, 128)])
def test_align(offset: int, aligned: int) -> None:
    assert align(offset) == aligned
    assert ALIGNMENT_BYTES == 64


def test_both_sides_see_what_either_writes() -> None:
    ours = Slab.create(100)
    theirs = Slab(os.dup(ours.fd))
    assert ours.size_bytes == theirs.size_bytes == PAGE_BYTES
    ours.view[10:15] = b"hello"
    assert bytes(theirs.view[10:15]) == b"hello"
    theirs.view[0] = 7
    assert ours.view[0] == 7
    ours.close()
    theirs.close()


def test_growth_doubles_and_keeps_what_is_there() -> None:
    slab = Slab.create(PAGE_BYTES)
    slab.view[:3] = b"old"
    slab.ensure(PAGE_BYTES)
    assert slab.size_bytes == PAGE_BYTES
    slab.ensure(PAGE_BYTES + 1)
    assert slab.size_bytes == 2 * PAGE_BYTES
    slab.ensure(9 * PAGE_BYTES - 5)
    assert slab.size_bytes == 9 * PAGE_BYTES
    assert bytes(slab.view[:3]) == b"old"
    slab.close()


def test_views_taken_before_growth_stay_good() -> None:
    slab = Slab.create(PAGE_BYTES)
    array = np.ndarray((4,), np.uint8, buffer=slab.view)
    view = slab.view[:4]
    slab.ensure(50 * PAGE_BYTES)
    slab.view[:4] = b"\1\2\3\4"
    assert bytes(view) == b"\1\2\3\4"
    array[0] = 9
    assert slab.view[0] == 9
    slab.close()
    assert array.tolist() == [9, 2, 3, 4]


def test_the_other_side_refreshes_after_growth() -> None:
    ours = Slab.create(PAGE_BYTES)
    theirs = Slab(os.dup(ours.fd))
    theirs.ensure(3 * PAGE_BYTES)
    theirs.view[theirs.size_bytes - 1] = 42
    same_view = ours.view
    ours.refresh()
    assert ours.size_bytes == theirs.size_bytes
    assert ours.view[ours.size_bytes - 1] == 42
    assert len(same_view) == PAGE_BYTES
    now = ours.view
    ours.refresh()
    assert ours.view is now
    ours.close()
    theirs.close()


def test_nobody_can_shrink_it() -> None:
    slab = Slab.create(4 * PAGE_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(slab.fd, PAGE_BYTES)
    assert slab.view[4 * PAGE_BYTES - 1] == 0
    slab.close()


def test_no_descriptor_and_no_mapping_stays() -> None:
    with none_left():
        slab = Slab.create(1)
        view = slab.view[:10]
        for size in range(1, 20):
            slab.ensure(size * 4 * PAGE_BYTES)
        slab.close()
        assert len(view) == 10
        del view
    with open("/proc/self/maps") as maps:
        assert "penstock-slab" not in maps.read()


def test_no_child_inherits_it() -> None:
    slab = Slab.create(1)
    assert not os.get_inheritable(slab.fd)
    slab.close()


def test_a_machine_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    slab = Slab.create(PAGE_BYTES)
    slab.view[:2] = b"ok"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    text = f"no memory for a batch of {5 * PAGE_BYTES} bytes: No space left on device"
    with pytest.raises(Unavailable, match=text):
        slab.ensure(5 * PAGE_BYTES)
    assert (slab.size_bytes, bytes(slab.view[:2])) == (PAGE_BYTES, b"ok")
    slab.close()
    with none_left(), pytest.raises(Unavailable):
        Slab.create(PAGE_BYTES)
