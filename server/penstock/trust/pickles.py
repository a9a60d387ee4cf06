"""Finds pickles: by a file's name, and by what it begins with, also inside archives and compressed ones.

Reading a pickle runs whatever it says. A search like this finds what is called or looks like one; it can't find one
that somebody has hidden on purpose in a file that the model's own code knows how to take apart.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import pickletools
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Final

import numpy as np

NAMES: Final = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"})
"""Files that are called so are pickles."""
TORCH_NAMES: Final = frozenset({".pt", ".pth", ".ckpt"})
"""Files that are called so are pickles unless they are seen to be something else."""
HEAD_BYTES: Final = 4096
MAX_DEPTH: Final = 3
"""Archives within archives."""
MAX_MEMBERS: Final = 10_000

_NPY: Final = b"\x93NUMPY"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_RISKY: Final = frozenset(
    {
        "GLOBAL",
        "INST",
        "STACK_GLOBAL",
        "REDUCE",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "EXT1",
        "EXT2",
        "EXT4",
    }
)


def find_pickle(file: BinaryIO, name: str) -> str:
    """Why the file is taken for a pickle, or for something that holds one; empty: it isn't. Moves the file's position.

    The file can be read and sought.
    """
    return _look(file, name, MAX_DEPTH)


def _look(file: BinaryIO, name: str, depth: int) -> str:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if named := NAMES.intersection(suffixes):
        return f"it is called {min(named)}"
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head.startswith(_NPY):
        return _of_npy(file)
    if head.startswith(_ZIP):
        return _of_zip(file, depth)
    if _is_tar(head):
        return _of_tar(file, depth)
    if found := _of_head(head):
        return found
    for inner in _decompressed(head):
        if (
            found := "it is a compressed .npy of objects"
            if _is_object_npy(inner)
            else _of_head(inner)
        ):
            return f"inside a compressed file: {found}"
    if suffixes and suffixes[-1] in TORCH_NAMES:
        return f"it is called {suffixes[-1]}, and is neither TorchScript nor an archive without pickles"
    return ""


def _of_head(head: bytes) -> str:
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "it begins like a pickle" if _parses(head, risky=False) else ""
    return "it reads as a pickle" if _parses(head, risky=True) else ""


def _parses(head: bytes, *, risky: bool) -> bool:
    """Whether it is a pickle as far as it goes. `risky`: only if it is complete, and makes objects: the old protocols
    are plain text, and so are other files."""
    seen: set[str] = set()
    operations = 0
    try:
        for opcode, _, _ in pickletools.genops(head):
            seen.add(opcode.name)
            operations += 1
            if opcode.name == "STOP":
                return not risky or bool(seen & _RISKY)
    except Exception:  # noqa: BLE001 - it raises whatever its readers raise; the head of a long one just ends
        return not risky and operations > 1
    return False


def _of_npy(file: BinaryIO) -> str:
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        _, _, dtype = read(file)
    except (ValueError, OSError, SyntaxError) as error:
        # version 3 has names that are UTF-8; nobody needs to be told more of one that can't be read
        return "" if "(3, 0)" in str(error) else _of_header(file)
    return "it is an .npy of Python objects" if dtype.hasobject else ""


def _of_header(file: BinaryIO) -> str:
    file.seek(0)
    return "it is an .npy of Python objects" if _is_object_npy(file.read(HEAD_BYTES)) else ""


def _is_object_npy(head: bytes) -> bool:
    if not head.startswith(_NPY):
        return False
    header = head[: head.find(b"\n") + 1] or head
    return b"O'" in header or b'O"' in header


def _of_zip(file: BinaryIO, depth: int) -> str:
    if depth == 0:
        return f"it has archives in it, over {MAX_DEPTH} deep"
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                return f"it is an archive of over {MAX_MEMBERS} files"
            if _is_torchscript([member.filename for member in members]):
                return ""
            for member in members:
                with archive.open(member) as inner:
                    if found := _look(
                        _seekable(inner, member.file_size), member.filename, depth - 1
                    ):
                        return f"{member.filename[:100]!a} in it: {found}"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, zlib.error, EOFError):
        return "it is an archive that can't be read"
    return ""


def _is_torchscript(names: list[str]) -> bool:
    """Its pickles are read by a reader of its own, which makes tensors and TorchScript's objects only; torch.load, too,
    gives archives with a constants.pkl to that one."""
    tails = {name.partition("/")[2] for name in names}
    return "constants.pkl" in tails and any(tail.startswith("code/") for tail in tails)


def _of_tar(file: BinaryIO, depth: int) -> str:
    if depth == 0:
        return f"it has archives in it, over {MAX_DEPTH} deep"
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for number, member in enumerate(archive):
                if number > MAX_MEMBERS:
                    return f"it is an archive of over {MAX_MEMBERS} files"
                inner = archive.extractfile(member) if member.isfile() else None
                if inner is not None and (found := _look(inner, member.name, depth - 1)):  # type: ignore[arg-type]
                    return f"{member.name[:100]!a} in it: {found}"
    except (tarfile.TarError, OSError, EOFError):
        return "it is an archive that can't be read"
    return ""


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _seekable(inner: object, size: int) -> BinaryIO:
    """A member of an archive can be sought, but only by unpacking it again. Small ones, and those that are archives
    themselves, are better read at once."""
    assert isinstance(inner, zipfile.ZipExtFile)
    head = inner.peek(HEAD_BYTES)
    if head.startswith(_ZIP) or _is_tar(head[:HEAD_BYTES]) or size <= HEAD_BYTES:
        return inner  # type: ignore[return-value]
    return io.BytesIO(inner.read(HEAD_BYTES))


def _decompressed(head: bytes) -> Iterator[bytes]:
    """What a compressed file begins with inside."""
    if head[:2] == b"\x1f\x8b":
        yield _start(lambda: zlib.decompressobj(31).decompress(head, HEAD_BYTES))
    elif head[:1] == b"\x78" and head[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        yield _start(lambda: zlib.decompressobj().decompress(head, HEAD_BYTES))
    elif head[:3] == b"BZh":
        yield _start(lambda: bz2.BZ2Decompressor().decompress(head, HEAD_BYTES))
    elif head[:6] == b"\xfd7zXZ\x00" or head[:3] == b"\x5d\x00\x00":
        yield _start(lambda: lzma.LZMADecompressor().decompress(head, HEAD_BYTES))


def _start(decompress: object) -> bytes:
    with contextlib.suppress(OSError, zlib.error, lzma.LZMAError, EOFError, ValueError):
        return bytes(decompress())  # type: ignore[operator]
    return b""
