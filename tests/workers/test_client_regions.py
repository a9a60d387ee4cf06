"""Shared memory that clients own, and change while it is in use."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from descriptors import open_descriptors
from pending import pending
from penstock.errors import InvalidRequest, NotFound
from penstock.types import RegionRef
from penstock.workers.client_regions import RESERVED_PREFIX, Region, RegionInput
from penstock.workers.gather import InputsLost, gather
from penstock.workers.slab import Slab
from region_files import region_file
from served import region_key

pytestmark = pytest.mark.extension("system_shared_memory")

CONTENT = bytes(range(256)) * 64
SIZE = len(CONTENT)


def slab_of_sevens() -> Slab:
    slab = Slab.create(SIZE)
    slab.view[:] = b"\7" * slab.size_bytes
    return slab


@pytest.mark.parametrize(("offset", "byte_size"), [(0, SIZE), (100, 1), (SIZE - 3, 3)])
def test_any_part_of_a_file_can_be_a_region(offset: int, byte_size: int) -> None:
    with region_file(CONTENT) as (key, path):
        region = Region("r", key, offset, byte_size)
        ref = RegionRef("r", byte_size // 2, byte_size - byte_size // 2)
        at = offset + ref.offset
        assert region.read(ref) == CONTENT[at : at + ref.byte_size]
        region.write(b"!", ref)
        assert path.read_bytes() == CONTENT[:at] + b"!" + CONTENT[at + 1 :]


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(0, SIZE + 1), (1, SIZE), (SIZE, 1), (0, 0), (-1, 5), (0, -1), (2**70, 1)],
)
def test_a_region_lies_within_its_file(offset: int, byte_size: int) -> None:
    with (
        region_file(CONTENT) as (key, _),
        pytest.raises(
            InvalidRequest, match=r"failed to register .* 'r': invalid args: .*16384 bytes"
        ),
    ):
        Region("r", key, offset, byte_size)


def test_a_key_may_come_without_its_slash() -> None:
    with region_file(CONTENT) as (key, _):
        assert Region("r", key.lstrip("/"), 0, 1).read(RegionRef("r", 0, 1)) == b"\0"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/.",
        "/..",
        "..",
        "/../shm/x",
        "/a/b",
        "/proc/self/fd/1",
        "/x\0",
        "/" + "x" * 256,
        "/" + "ä" * 128,
    ],
)
def test_a_key_names_a_file_of_shared_memory_and_nothing_else(key: str) -> None:
    with pytest.raises(InvalidRequest, match="Unable to open shared memory region"):
        Region("r", key, 0, 1)


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(NotFound, match="Unable to open shared memory region: '/penstock-test-"):
        Region("r", region_key("never"), 0, 1)


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_what_tritons_python_models_use_is_refused(slashes: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot register .* contains the reserved prefix"):
        Region("r", f"{slashes}{RESERVED_PREFIX}1", 0, 1)


def test_links_pipes_and_folders_are_no_shared_memory(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    descriptors = open_descriptors()
    with region_file(b"") as (key, path):
        makers: list[Callable[[], object]] = [
            lambda: path.symlink_to(secret),
            lambda: path.symlink_to("/proc/self/fd/0"),
            lambda: os.mkfifo(path),
        ]
        for make in makers:
            path.unlink()
            make()
            with pytest.raises(InvalidRequest, match="Unable to open shared memory region"):
                Region("r", key, 0, 1)
        path.unlink()
        path.mkdir()
        try:
            with pytest.raises(InvalidRequest, match="Unable to open shared memory region"):
                Region("r", key, 0, 1)
        finally:
            path.rmdir()
    assert open_descriptors() == descriptors


@pytest.mark.parametrize(
    ("offset", "byte_size", "says"),
    [
        (-1, 4, "Invalid offset for shared memory region: 'r'"),
        (100, 0, "Invalid offset for shared memory region: 'r'"),
        (0, 101, r"Invalid offset \+ byte size for shared memory region: 'r'"),
        (97, 4, r"Invalid offset \+ byte size for shared memory region: 'r'"),
        (0, -1, r"Invalid offset \+ byte size for shared memory region: 'r'"),
    ],
)
def test_what_a_request_names_lies_within_the_region(
    offset: int, byte_size: int, says: str
) -> None:
    with region_file(CONTENT) as (key, _):
        region = Region("r", key, 10, 100)
        region.check(RegionRef("r", 96, 4))
        with pytest.raises(InvalidRequest, match=says):
            region.check(RegionRef("r", offset, byte_size))


def test_a_file_that_shrinks_is_an_error_and_kills_nobody() -> None:
    with region_file(CONTENT) as (key, path):
        region, ref = Region("r", key, 0, SIZE), RegionRef("r", 0, SIZE)
        os.truncate(path, 1000)
        slab = slab_of_sevens()
        for use in (
            lambda: region.check(ref),
            lambda: region.read(ref),
            lambda: region.write(CONTENT, ref),
            lambda: RegionInput(region, ref).read_into(slab.view[:SIZE]),
        ):
            with pytest.raises(InvalidRequest, match=r"'r' has been made smaller .* 16384 .* 1000"):
                use()
        # nothing that lay in the slab before reaches this request's model
        assert bytes(slab.view[:SIZE]) == CONTENT[:1000] + bytes(SIZE - 1000)
        assert path.stat().st_size == 1000
        assert bytes(RegionInput(region, ref)) == CONTENT[:1000] + bytes(SIZE - 1000)
        region.check(RegionRef("r", 0, 1000))
        slab.close()


def test_a_file_without_a_name_is_still_there() -> None:
    with region_file(CONTENT) as (key, path):
        region = Region("r", key, 0, SIZE)
        path.unlink()
        region.write(b"abc", RegionRef("r", 5, 3))
        assert region.read(RegionRef("r", 4, 5)) == b"\x04abc\x08"


def test_a_full_shared_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with region_file(CONTENT) as (key, _):
        region = Region("r", key, 0, SIZE)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(InvalidRequest, match="'r' can't be written: No space left on device"):
            region.write(b"abc", RegionRef("r", 0, 3))


def test_system_calls_that_do_only_a_part_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    pread, pwrite = os.preadv, os.pwrite
    with region_file(CONTENT) as (key, path):
        region, ref = Region("r", key, 3, SIZE - 3), RegionRef("r", 2, 5000)
        with monkeypatch.context() as patched:
            patched.setattr(os, "preadv", lambda fd, views, at: pread(fd, [views[0][:999]], at))
            patched.setattr(os, "pwrite", lambda fd, view, at: pwrite(fd, view[:999], at))
            assert region.read(ref) == CONTENT[5:5005]
            region.write(CONTENT[7:5007], ref)
        assert path.read_bytes() == CONTENT[:5] + CONTENT[7:5007] + CONTENT[5005:]


def test_the_descriptor_is_closed_with_its_last_user() -> None:
    before = open_descriptors()
    with region_file(CONTENT) as (key, _):
        used = RegionInput(Region("r", key, 0, SIZE), RegionRef("r", 0, 4096))
        assert len(open_descriptors()) == len(before) + 1
        assert len(used) == 4096
        del used
    gc.collect()
    assert open_descriptors() == before


def test_inputs_go_from_regions_into_the_slab_beside_others() -> None:
    array = np.frombuffer(CONTENT, np.float32).reshape(2, -1)
    one = np.ones((1, array.shape[1]), np.float32)
    slab = slab_of_sevens()
    with region_file(CONTENT) as (key, _):
        there = RegionInput(Region("r", key, 0, SIZE), RegionRef("r", 0, SIZE))
        batch = [pending({"X": one}), pending({"X": array}, buffers=[there]), pending({"X": one})]
        (slot,) = gather(1, 0, slab, batch).inputs
        assert slot.shape == (4, array.shape[1])
        joined = one.tobytes() + CONTENT + one.tobytes()
        assert bytes(slab.view[slot.offset : slot.offset + slot.nbytes]) == joined
        # what is remembered of a request that kills workers
        assert batch[1].digest() == pending({"X": array}).digest()
    slab.close()


def test_of_a_batch_only_those_whose_inputs_are_gone_are_lost() -> None:
    array = np.frombuffer(CONTENT, np.float32).reshape(1, -1)
    slab = slab_of_sevens()
    with region_file(CONTENT) as (key, path), region_file(CONTENT) as (other_key, _):
        ref = RegionRef("r", 0, SIZE)
        gone = RegionInput(Region("gone", key, 0, SIZE), ref)
        there = RegionInput(Region("there", other_key, 0, SIZE), ref)
        batch = [pending({"X": array}, buffers=[b]) for b in (gone, CONTENT, there, gone)]
        os.truncate(path, SIZE - 1)
        with pytest.raises(InputsLost) as lost:
            gather(1, 0, slab, batch)
        assert set(lost.value.lost) == {batch[0], batch[3]}
        assert all("'gone' has been made smaller" in str(e) for e in lost.value.lost.values())
        (slot,) = gather(2, 0, slab, batch[1:3]).inputs
        assert bytes(slab.view[slot.offset : slot.offset + slot.nbytes]) == 2 * CONTENT
    slab.close()
