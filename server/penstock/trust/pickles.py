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
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Final

import numpy as np

from penstock.backends.mlflow_model_file import FILENAME as MLMODEL
from penstock.backends.mlflow_model_file import MAX_BYTES as MLMODEL_BYTES
from penstock.backends.mlflow_model_file import trusted_types

NAMES: Final = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"})
"""Files that are called so are pickles."""
TORCH_NAMES: Final = frozenset({".pt", ".pth", ".ckpt"})
"""Files that are called so are pickles unless they are seen to be something else."""
EXPORTED: Final = ".pt2"
AS_GOOD_AS_ONE: Final = (
    "it is as good as one, being a program of torch.export, whose guards are Python code, or what AOTInductor has"
    " compiled of one, which is native code"
)
REACHES_FILES: Final = "it is as good as one, being TorchScript that may read or write any file"
DAMAGED: Final = "it is a damaged archive"
EMPTY: Final = "it is empty"
HEAD_BYTES: Final = 4096
PICKLE_BYTES: Final = 1 << 20
"""How far a file is read as a pickle: what makes objects may come after long texts and lists."""
MAX_NPY_HEADER_BYTES: Final = 100_000
MAX_DEPTH: Final = 3
"""Archives within archives."""
MAX_MEMBERS: Final = 10_000
MAX_CODE_BYTES: Final = 1 << 24
"""Of one file of TorchScript's code."""

_NPY: Final = b"\x93NUMPY"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_BEYOND: Final = frozenset(
    {
        pickletools.TAKEN_FROM_ARGUMENT4,
        pickletools.TAKEN_FROM_ARGUMENT4U,
        pickletools.TAKEN_FROM_ARGUMENT8U,
        pickletools.UP_TO_NEWLINE,
    }
)
_LONG: Final = frozenset(
    opcode.code.encode("latin-1")
    for opcode in pickletools.opcodes
    if opcode.arg is not None and opcode.arg.n in _BEYOND
)
"""What has an argument that may be longer than all that is read."""
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
_SCRIPT_PICKLES: Final = (".pkl", ".debug_pkl")
_OF_FILES: Final = re.compile(
    rb"\b(save|from_file)\b|\bgetattr\b(?!\s*\(\s*[\w.]+\s*,\s*[\"']\w+[\"']\s*\))"
)
"""TorchScript's operators on files (torch.save, torch.from_file), and a getattr that could hide their names."""
_CALLS: Final = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})


def find_pickle(file: BinaryIO, name: str) -> str:
    """Why the file is taken for a pickle, or for something that holds one; empty: it isn't. Moves the file's position.

    The file can be read and sought.
    """
    return _look(file, name, MAX_DEPTH)


def is_damage(why: str) -> bool:
    """Whether `find_pickle` only could not see what is in the file: it was cut or changed on the way."""
    return why.endswith((DAMAGED, EMPTY))


def _look(file: BinaryIO, name: str, depth: int) -> str:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if named := NAMES.intersection(suffixes):
        return f"it is called {min(named)}"
    if suffixes and suffixes[-1] == EXPORTED:
        return AS_GOOD_AS_ONE
    file.seek(0)
    if PurePosixPath(name).name == MLMODEL:
        return _of_mlmodel(file)
    head = file.read(HEAD_BYTES)
    if head.startswith(_NPY):
        return _of_npy(file)
    if head.startswith(_ZIP):
        return _of_zip(file, depth)
    if _is_tar(head):
        return _of_tar(file, depth)
    start = head + file.read(PICKLE_BYTES - HEAD_BYTES)
    if found := _of_head(start):
        return found
    for inner in _decompressed(start):
        if (
            found := "it is a compressed .npy of objects"
            if _is_object_npy(inner)
            else _of_head(inner)
        ):
            return f"inside a compressed file: {found}"
    if suffixes and suffixes[-1] in TORCH_NAMES:
        if not head:
            return EMPTY
        return f"it is called {suffixes[-1]}, and is neither TorchScript nor an archive without pickles"
    return ""


def _of_head(head: bytes) -> str:
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "it begins like a pickle" if _begins(head) else ""
    return "it reads as a pickle" if _makes_objects(head) else ""


def _begins(head: bytes) -> bool:
    """Whether something that a pickle may say comes after what says its protocol."""
    try:
        for number, _ in enumerate(pickletools.genops(head)):
            if number:
                return True
    except Exception:  # noqa: BLE001 - it raises whatever its readers raise
        # a text or bytes that are longer than what is here
        return head[2:3] in _LONG
    return False


def _makes_objects(head: bytes) -> bool:
    """Whether it is a pickle that makes objects. The old protocols are plain text, and so are other files: it has to be
    complete, or to have what it needs for all that it does as far as it was read."""
    seen: set[str] = set()
    stack = _Stack()
    try:
        for opcode, _, _ in pickletools.genops(head):
            seen.add(opcode.name)
            stack.run(opcode)
            if opcode.name == "STOP":
                return bool(seen & _RISKY)
    except Exception:  # noqa: BLE001 - it raises whatever its readers raise; what is read of a long one just ends
        return len(head) >= HEAD_BYTES and stack.holds and bool(seen & _CALLS)
    return False


class _Stack:
    """How many things lie on a pickle's stack."""

    def __init__(self) -> None:
        self.holds = True
        """Nothing was taken that was not there."""
        self._depth = 0
        self._marks: list[int] = []

    def run(self, opcode: pickletools.OpcodeInfo) -> None:
        """What it takes, and what it leaves."""
        before, after = opcode.stack_before, opcode.stack_after
        if opcode.name == "POP" and self._marks and self._marks[-1] == self._depth:
            self._marks.pop()
            return
        if pickletools.markobject in before:
            self.holds = self.holds and bool(self._marks)
            self._depth = self._marks.pop() if self._marks else 0
            before = before[: before.index(pickletools.markobject)]
        floor = self._marks[-1] if self._marks else 0
        self.holds = self.holds and self._depth - len(before) >= floor
        self._depth -= len(before)
        if pickletools.markobject in after:
            self._marks.append(self._depth)
        else:
            self._depth += len(after)


def _of_mlmodel(file: BinaryIO) -> str:
    """Files of skops make objects of types that are known to be harmless, and of those that the model itself names."""
    if types := trusted_types(file.read(MLMODEL_BYTES)):
        shown = ", ".join(types[:3])
        return (
            f"it is as good as one, for its skops_trusted_types allow skops to make {shown[:200]!a}"
        )
    return ""


def _of_npy(file: BinaryIO) -> str:
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        # longer headers are read by whoever allows objects
        _, _, dtype = read(file, max_header_size=MAX_NPY_HEADER_BYTES)
    except (ValueError, OSError, SyntaxError, TypeError, RecursionError, MemoryError):
        return "it is an .npy whose header can't be read"
    return "it is an .npy of Python objects" if dtype.hasobject else ""


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
            if any(_is_exported(archive, member) for member in members):
                return AS_GOOD_AS_ONE
            if _is_torchscript([member.filename for member in members]):
                if any(_reaches_files(archive, member) for member in members):
                    return REACHES_FILES
                members = [m for m in members if not m.filename.endswith(_SCRIPT_PICKLES)]
            for member in members:
                with archive.open(member) as inner:
                    if found := _look(
                        _seekable(inner, member.file_size), member.filename, depth - 1
                    ):
                        return f"{member.filename[:100]!a} in it: {found}"
    except (zipfile.BadZipFile, OSError, zlib.error, EOFError):
        return DAMAGED
    except RuntimeError:
        # encrypted, or compressed in a way that is not known here
        return "it is an archive that can't be read"
    return ""


def _is_exported(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    named = member.filename.partition("/")[2] == "archive_format" and member.file_size < HEAD_BYTES
    return named and archive.read(member).strip() == b"pt2"


def _is_torchscript(names: list[str]) -> bool:
    """Its pickles are read by a reader of its own, which makes tensors and TorchScript's objects only; torch.load, too,
    gives archives with a constants.pkl to that one. Of several folders in it either would read the first one."""
    tails = {name.partition("/")[2] for name in names}
    if len({name.partition("/")[0] for name in names}) != 1:
        return False
    return "constants.pkl" in tails and any(tail.startswith("code/") for tail in tails)


def _reaches_files(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether it is TorchScript's code, and names what deals with files, or is too long to be read for that. What only
    is called so is taken for it."""
    _, _, inside = member.filename.partition("/")
    if not inside.startswith("code/") or not inside.endswith(".py"):
        return False
    if member.file_size > MAX_CODE_BYTES:
        return True
    return _OF_FILES.search(archive.read(member)) is not None


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
        return DAMAGED
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
    return io.BytesIO(inner.read(PICKLE_BYTES))


def _decompressed(head: bytes) -> Iterator[bytes]:
    """What a compressed file begins with inside."""
    if head[:2] == b"\x1f\x8b":
        yield _start(lambda: zlib.decompressobj(31).decompress(head, PICKLE_BYTES))
    elif head[:1] == b"\x78" and head[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        yield _start(lambda: zlib.decompressobj().decompress(head, PICKLE_BYTES))
    elif head[:3] == b"BZh":
        yield _start(lambda: bz2.BZ2Decompressor().decompress(head, PICKLE_BYTES))
    elif head[:6] == b"\xfd7zXZ\x00" or head[:3] == b"\x5d\x00\x00":
        yield _start(lambda: lzma.LZMADecompressor().decompress(head, PICKLE_BYTES))


def _start(decompress: object) -> bytes:
    with contextlib.suppress(OSError, zlib.error, lzma.LZMAError, EOFError, ValueError):
        return bytes(decompress())  # type: ignore[operator]
    return b""
