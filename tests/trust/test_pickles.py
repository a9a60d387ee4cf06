"""Which files are taken for pickles."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from penstock.trust.pickles import MAX_DEPTH, PICKLE_BYTES, find_pickle, is_damage

REPO = Path(__file__).parents[2] / "model_repo"


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def of_zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def of_tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def of_npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version)
    return buffer.getvalue()


PICKLES = [pickle.dumps(Evil(), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
OBJECTS = of_npy(np.array([{}], np.object_))
TORCH = {"archive/data.pkl": PICKLES[2], "archive/data/0": b"\0" * 64, "archive/version": b"3\n"}
SCRIPT = {**TORCH, "archive/code/__torch__.py": b"", "archive/constants.pkl": PICKLES[2]}


def found(content: bytes, name: str = "model") -> str:
    return find_pickle(io.BytesIO(content), name)


@pytest.mark.parametrize("content", PICKLES)
def test_any_protocol_by_its_content(content: bytes) -> None:
    assert "pickle" in found(content)
    assert "pickle" in found(content, "config.json")
    assert "pickle" in found(content + b"what comes after it is not read")


def test_a_long_one() -> None:
    assert "pickle" in found(pickle.dumps([list(range(10_000)), Evil()], 4))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("before", ["x" * 6000, b"x" * 6000, "x" * (2 << 20), list(range(3000))])
def test_what_makes_objects_may_come_late(protocol: int, before: object) -> None:
    late = pickle.dumps((before, Evil()), protocol)
    if protocol < 2 and len(late) > PICKLE_BYTES:
        assert found(late) == ""
    else:
        assert "pickle" in found(late)
        assert "pickle" in found(gzip.compress(late))
        assert "pickle" in found(of_zip({"a": late}))
    assert "pickle" in found(pickle.dumps([Evil(), before], protocol))
    assert "pickle" in found(pickle.dumps(np.ones(9000), protocol))


@pytest.mark.parametrize("name", ["a.pkl", "b/a.PICKLE", "a.joblib", "a.dill", "a.pkl.gz"])
def test_by_its_name(name: str) -> None:
    assert "called" in found(b"", name)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt"])
def test_what_is_called_a_torch_file(name: str) -> None:
    assert "called" in found(b"anything", name)
    assert "data.pkl" in found(of_zip(TORCH), name)
    assert found(of_zip(SCRIPT), name) == ""
    assert found(of_zip({"weights": b"\0"}), name) == ""


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_a_compressed_one(compress: object) -> None:
    assert "inside a compressed file" in found(compress(PICKLES[4]))  # type: ignore[operator]
    assert "inside a compressed file" in found(compress(OBJECTS))  # type: ignore[operator]
    assert found(compress(b"text")) == ""  # type: ignore[operator]


def test_arrays() -> None:
    assert "objects" in found(OBJECTS)
    assert "objects" in found(of_npy(np.array([{}], np.object_), (2, 0)))
    assert "objects" in found(of_npy(np.array([({}, 1)], [("ä", "O"), ("b", "i4")])))
    assert "objects" in found(of_zip({"a.npy": OBJECTS}), "a.npz")
    assert found(of_npy(np.zeros(3))) == ""
    assert found(of_npy(np.zeros(3, [("ä", "f4")]))) == ""
    assert found(of_zip({"a.npy": of_npy(np.zeros(9000))}), "a.npz") == ""


def test_an_array_with_a_long_header() -> None:
    """NumPy reads one of any length where it may make objects."""
    for pad in (6000, 20_000, 200_000):
        header = b"%s{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n" % (b" " * pad)
        long = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header
        for content in (long, of_zip({"a.npy": long + bytes(9000)})):
            assert ".npy" in found(content), pad


def test_what_only_looks_like_torchscript() -> None:
    """PyTorch reads the first folder of an archive, and NumPy all of it."""
    script = {"b/constants.pkl": b"", "b/code/x.py": b""}
    assert "data.pkl" in found(of_zip({**TORCH, **script}), "a.pt")
    assert "objects" in found(of_zip({**script, "b/evil.npy": OBJECTS}), "a.npz")
    assert "pkl" in found(of_zip({**script, "evil.npy": OBJECTS}), "a.npz")


def test_archives() -> None:
    assert "'deep/a'" in found(of_zip({"deep/a": PICKLES[0]}))
    assert "'a.pkl'" in found(of_tar("a.pkl", b""))
    assert "pickle" in found(of_tar("a", PICKLES[3]))
    assert "pickle" in found(of_zip({"inner": of_zip({"a": PICKLES[5] + bytes(5000)})}))
    assert "pickle" in found(of_zip({"inner": of_tar("a", PICKLES[5])}))
    deep = b"x"
    for _ in range(MAX_DEPTH + 1):
        deep = of_zip({"a": deep})
    assert "deep" in found(deep)
    for cut in (of_zip({"a": b"x"})[:-5], of_zip({"inner": of_zip({"a": b"x"})[:-5]})):
        assert is_damage(found(cut))
    assert not is_damage(found(PICKLES[0]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"cat\ndog\nRabbit.\n",
        b"cat\ndog\nRabbit\n" + b"word\n" * 2000,
        b"import numpy\n",
        b"N.",
        b"(lp0\n.",
        b"\x80\x04",
        b"\x80\xff" * 100,
        b"\x08\x08\x12\x07pytorch",
        b'{"a": 1}',
    ],
)
def test_what_is_none(content: bytes) -> None:
    assert found(content) == ""


@pytest.mark.parametrize(
    "path", [p for p in REPO.rglob("*") if p.is_file()], ids=lambda path: path.name
)
def test_the_examples_have_none(path: Path) -> None:
    with path.open("rb") as file:
        assert find_pickle(file, path.name) == ""
