"""CUDA sources → cubins, by NVRTC, once for each source, compute capability and version of NVRTC."""

# cuda.core and cuda.bindings are compiled, and have no stubs
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib.resources import files
from pathlib import Path

from cuda.bindings import nvrtc
from cuda.core import Program, ProgramOptions
from cuda.pathfinder import find_nvidia_header_directory


class CompileFailed(Exception):
    """NVRTC refuses a source, or has no headers."""


def source_of(name: str) -> str:
    """The CUDA source `name`.cu, with what all of them share before it."""
    folder = files("penstock_kernels.cuda")
    return (folder / "common.cuh").read_text() + (folder / f"{name}.cu").read_text()


def source_names() -> list[str]:
    """Of all CUDA sources."""
    folder = files("penstock_kernels.cuda")
    return sorted(entry.name[:-3] for entry in folder.iterdir() if entry.name.endswith(".cu"))


def compile_source(name: str, arch: str, cache: Path | None = None) -> bytes:
    """The cubin of a source for one architecture (`sm_90`), from `cache` where it lies there. Raises CompileFailed."""
    text = source_of(name)
    if cache is None:
        return _compiled(name, text, arch)
    key = hashlib.blake2b("\0".join((text, arch, _version())).encode(), digest_size=16).hexdigest()
    path = cache / f"{name}-{arch}-{key}.cubin"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        code = _compiled(name, text, arch)
    _keep(path, code)
    return code


def _compiled(name: str, text: str, arch: str) -> bytes:
    headers = find_nvidia_header_directory("cudart")
    if headers is None:
        raise CompileFailed(
            "CUDA's headers are not there; expected the package nvidia-cuda-runtime"
        )
    options = ProgramOptions(name=f"{name}.cu", arch=arch, std="c++17", include_path=[headers])
    try:
        code = Program(text, "c++", options).compile("cubin").code
    except Exception as error:
        raise CompileFailed(f"NVRTC can't compile {name}.cu for {arch}: {error}") from error
    assert isinstance(code, bytes)
    return code


def _version() -> str:
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


def _keep(path: Path, code: bytes) -> None:
    """Whole or not at all, for several workers may write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(code)
    os.replace(file.name, path)
