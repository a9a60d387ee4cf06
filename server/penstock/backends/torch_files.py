"""Finds the file of a PyTorch model, and tells by its content what kind it is. Nothing of it is run."""

from __future__ import annotations

import json
import platform
import zipfile
import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from penstock.backends.base import LoadSpec
from penstock.errors import LoadFailed

FILENAMES: Final = ("model.pt", "model.pt2")
WEIGHTS: Final = ("model.safetensors", "weights.pt")
SOURCE: Final = "model.py"
"""Holds the class that weights are for."""

_AOTI: Final = "/data/aotinductor/"
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What reading an archive may raise; the last ones where it says that it is encrypted, or compressed in an odd way."""
_SMALL_BYTES: Final = 1 << 20
"""Of a member that is read into memory. A few bytes on the disk may be gigabytes there."""
_PICKLE_PROTOCOLS: Final = range(2, 6)
_ISA_FLAGS: Final = {
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX_TILE": "amx_tile",
}
"""How AOTInductor calls what a CPU has to have → how Linux calls it."""


class Kind(Enum):
    """What a model was saved as."""

    TORCHSCRIPT = "TorchScript"
    EXPORTED = "program of torch.export"
    COMPILED = "AOTInductor package"
    WEIGHTS = "state dict"


@dataclass(frozen=True, slots=True)
class TorchFile:
    """The model's file."""

    path: Path
    kind: Kind


def find_file(spec: LoadSpec) -> TorchFile:
    """`default_model_filename`, or the one that lies there under a usual name. Raises LoadFailed where there is none,
    or it can't be told which, or it is nothing that this backend loads."""
    path = _path(spec)
    kind = kind_of(path)
    if kind is Kind.WEIGHTS and not (path.parent / SOURCE).is_file():
        raise LoadFailed(
            f"{path} holds weights only: expected {SOURCE} beside it, with the class that they are for"
        )
    return TorchFile(path, kind)


def kind_of(path: Path) -> Kind:
    """By what is in it. Raises LoadFailed on what is damaged, or none of the kinds."""
    if path.suffix == ".safetensors":
        return Kind.WEIGHTS
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            offsets = [member.header_offset for member in archive.infolist()]
            if offsets and min(offsets) > 0:
                # of a cut archive the end of one that lies in it may be found
                raise zipfile.BadZipFile("it does not begin as an archive")
            if kind := _of_archive(archive, names):
                return kind
    except _DAMAGED as error:
        if _is_old_pickle(path):
            return Kind.WEIGHTS
        raise LoadFailed(
            f"{path} is damaged, or no file of PyTorch's: expected TorchScript, a program of torch.export, an"
            f" AOTInductor package or a state dict ({error})"
        ) from error
    except OSError as error:
        raise LoadFailed(f"{path} can't be read: {error.strerror}") from error
    inside = [name.partition("/")[2] or name for name in names]
    shown = ", ".join(sorted(inside)[:4])
    raise LoadFailed(
        f"{path} is an archive of {shown or 'nothing'}: expected TorchScript, a program of torch.export, an AOTInductor"
        " package or a state dict"
    )


def check_compiled(path: Path, device: str) -> None:
    """An AOTInductor package is code of one kind of machine, which would end the worker on another one.

    Raises LoadFailed where it was compiled for another device, machine or CPU, is damaged, or has files for elsewhere.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check_place(member.filename, path)
            if member.filename.endswith(".so"):
                _check_sum(archive, member, path)
            elif _AOTI in member.filename and member.filename.endswith("_metadata.json"):
                try:
                    found = json.loads(_small(archive, member))
                except (ValueError, *_DAMAGED) as error:
                    raise LoadFailed(f"{path} is damaged: {member.filename}: {error}") from error
                _check_machine(found if isinstance(found, dict) else {}, path, device)


def _path(spec: LoadSpec) -> Path:
    if filename := spec.config.get("default_model_filename"):
        path: Path = spec.version_dir / filename
        if not path.is_file():
            raise LoadFailed(f"there is no model file: expected {path}")
        if path.suffix != ".py":
            return path
    usual = [name for name in (*FILENAMES, *WEIGHTS) if (spec.version_dir / name).is_file()]
    if len(usual) == 1:
        return spec.version_dir / usual[0]
    if usual:
        raise LoadFailed(
            f"{spec.version_dir} holds {' and '.join(usual)}: say which by default_model_filename"
        )
    expected = f"{' or '.join(FILENAMES)}, or {' or '.join(WEIGHTS)} with {SOURCE}"
    raise LoadFailed(f"there is no model file: expected {expected} in {spec.version_dir}")


def _of_archive(archive: zipfile.ZipFile, names: list[str]) -> Kind | None:
    tails = {name.partition("/")[2]: name for name in names}
    if "archive_format" in tails and _small(archive, tails["archive_format"]).strip() == b"pt2":
        if any(_AOTI in name for name in names):
            return Kind.COMPILED
        return Kind.EXPORTED if any(tail.startswith("models/") for tail in tails) else None
    if "serialized_exported_program.json" in names or any("aotinductor" in name for name in names):
        raise LoadFailed(
            f"{archive.filename} was written by a version of torch before 2.8: expected what a later one has saved"
        )
    if "constants.pkl" in tails and any(tail.startswith("code/") for tail in tails):
        return Kind.TORCHSCRIPT
    return Kind.WEIGHTS if "data.pkl" in tails else None


def _is_old_pickle(path: Path) -> bool:
    """What torch.save wrote before it wrote archives."""
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x80 and head[1] in _PICKLE_PROTOCOLS


def _check_place(name: str, path: Path) -> None:
    """torch unpacks its files to wherever they say."""
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
        raise LoadFailed(
            f"{path} is no package: it would unpack {name[:100]!r} outside of its folder"
        )


def _small(archive: zipfile.ZipFile, member: zipfile.ZipInfo | str) -> bytes:
    with archive.open(member) as file:
        content = file.read(_SMALL_BYTES + 1)
    if len(content) > _SMALL_BYTES:
        raise zipfile.BadZipFile(f"{file.name} has more than {_SMALL_BYTES} bytes")
    return content


def _check_sum(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Code that was cut or changed on the way would end the worker without a word."""
    try:
        with archive.open(member) as file:
            while file.read(1 << 20):
                pass
    except (OSError, *_DAMAGED) as error:
        raise LoadFailed(f"{path} is damaged: {error}") from error


def _check_machine(found: dict[str, str], path: Path, device: str) -> None:
    key = found.get("AOTI_DEVICE_KEY") or device
    if key != device:
        raise LoadFailed(
            f"{path} was compiled for {key}, and this instance runs on {device}: compile it for {device},"
            f" or give it instances on {key}"
        )
    machine = found.get("AOTI_MACHINE") or platform.machine()
    if machine != platform.machine():
        raise LoadFailed(f"{path} was compiled for {machine}, and this is {platform.machine()}")
    flags = _cpu_flags()
    for isa in (found.get("AOTI_CPU_ISA") or "").split() if device == "cpu" and flags else ():
        if isa in _ISA_FLAGS and _ISA_FLAGS[isa] not in flags:
            raise LoadFailed(
                f"{path} was compiled for a CPU with {isa}, which this one doesn't have: compile it on this kind of CPU"
            )


def _cpu_flags() -> frozenset[str]:
    """What the CPU has; empty: not known."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
