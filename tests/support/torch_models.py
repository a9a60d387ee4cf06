"""Writes models of PyTorch into a folder, one of each kind: SUM = A + B, SCALED = A * 2, FP32, any number of rows."""

from __future__ import annotations

import shutil
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch._inductor.utils import fresh_cache

CONFIG = """
    backend: "torch"
    max_batch_size: 8
    input [
      { name: "A" data_type: TYPE_FP32 dims: [ 4 ] },
      { name: "B" data_type: TYPE_FP32 dims: [ 4 ] }
    ]
    output [
      { name: "SUM" data_type: TYPE_FP32 dims: [ 4 ] },
      { name: "SCALED" data_type: TYPE_FP32 dims: [ 4 ] }
    ]
    dynamic_batching { }
"""

SOURCE = """
    import torch


    class Model(torch.nn.Module):
        def __init__(self, parameters):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))
            self.offset = float(parameters.get("offset", "0"))

        def forward(self, A, B):
            return A + B + self.offset, A * self.scale
"""


class SumAndScaled(torch.nn.Module):
    """Its arguments have the inputs' names."""

    def forward(self, A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return A + B, A * 2


class AsDict(torch.nn.Module):
    """As the other, and its outputs have names, too."""

    def forward(self, A: torch.Tensor, B: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"SUM": A + B, "SCALED": A * 2}


def write_torchscript(folder: Path) -> None:
    """`model.pt`."""
    save_script(torch_script(SumAndScaled()), folder)
    write_config(folder)


def write_exported(folder: Path) -> None:
    """`model.pt2`, which says all of itself."""
    save_program(exported(AsDict()), folder)
    write_config(folder, 'backend: "torch"\nmax_batch_size: 8\ndynamic_batching { }')


def write_state_dict(folder: Path) -> None:
    """`model.safetensors` and `model.py`."""
    from safetensors.torch import save_file

    path = version_dir(folder) / "model.safetensors"
    save_file({"scale": torch.tensor(2.0)}, path)
    (path.parent / "model.py").write_text(textwrap.dedent(SOURCE))
    write_config(folder)


def write_aoti(folder: Path) -> None:
    """`model.pt2`, compiled for this machine: it takes seconds once in a process, and needs a C++ compiler."""
    (version_dir(folder) / "model.pt2").write_bytes(compiled_package())
    write_config(folder)


def has_compiler() -> bool:
    """Whether AOTInductor can compile here."""
    return shutil.which("g++") is not None


@cache
def compiled_package() -> bytes:
    """The package of the conformance model, made once in a process."""
    options = {
        # of this process, quickly: in place of a pool of processes, and of what many compilations would share
        "compile_threads": 1,
        "cpp_cache_precompile_headers": False,
        "aot_inductor.compile_wrapper_opt_level": "O0",
    }
    with TemporaryDirectory() as folder, legacy(), fresh_cache():
        path = Path(folder) / "model.pt2"
        with torch._inductor.config.patch(options):
            torch._inductor.aoti_compile_and_package(exported(AsDict()), package_path=str(path))
        return path.read_bytes()


def write_config(folder: Path, text: str = CONFIG) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(textwrap.dedent(text))


def version_dir(folder: Path) -> Path:
    path = folder / "1"
    path.mkdir(parents=True, exist_ok=True)
    return path


def torch_script(module: torch.nn.Module) -> Any:
    with legacy():
        return torch.jit.script(module.eval())


def save_script(script: Any, folder: Path, filename: str = "model.pt") -> Path:
    path = version_dir(folder) / filename
    with legacy():
        torch.jit.save(script, str(path))
    return path


def exported(
    module: torch.nn.Module, *example: Any, rows: torch.export.Dim | None = None, **named: Any
) -> torch.export.ExportedProgram:
    """With a first dimension of any size, of all tensors. Without an example: two of [3, 4]."""
    example = example or (torch.ones(3, 4), torch.ones(3, 4))
    free = {0: rows or torch.export.Dim("rows")}
    shapes = tuple(torch.utils._pytree.tree_map(lambda _: free, each) for each in example)
    with legacy():
        return torch.export.export(
            module.eval(), example, named or None, dynamic_shapes=shapes if not named else None
        )


def save_program(
    program: torch.export.ExportedProgram, folder: Path, filename: str = "model.pt2"
) -> Path:
    path = version_dir(folder) / filename
    with legacy():
        torch.export.save(program, path)
    return path


@contextmanager
def legacy() -> Iterator[None]:
    """torch warns of what it does itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


WRITERS: dict[str, Callable[[Path], None]] = {
    "torchscript": write_torchscript,
    "exported": write_exported,
    "state_dict": write_state_dict,
    "aoti": write_aoti,
}
