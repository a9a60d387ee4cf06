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

import safetensors.torch
import torch
from torch._inductor import config as inductor_config
from torch._inductor.utils import fresh_cache
from torch.utils import _pytree as pytree

from penstock.backends.torch_tensors import DTYPES

BATCHED = 'backend: "torch"\nmax_batch_size: 8\ndynamic_batching { }\n'
PICKY = f"""{BATCHED}
    input {{ name: "X" data_type: TYPE_INT64 dims: [ 1 ] }}
    output {{ name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }}
"""

SOURCE = """
    import torch


    class Model(torch.nn.Module):
        def __init__(self, parameters):
            super().__init__()
            kind = getattr(torch, parameters.get("dtype", "float32"))
            self.scale = torch.nn.Parameter(torch.zeros((), dtype=kind), requires_grad=False)

        def forward(self, A, B):
            return A + B, A * self.scale
"""


class SumAndScaled(torch.nn.Module):
    """Its arguments have the inputs' names."""

    def forward(self, A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return A + B, A * 2


class AsDict(torch.nn.Module):
    """As the other, and its outputs have names, too."""

    def forward(self, A: torch.Tensor, B: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"SUM": A + B, "SCALED": A * 2}


class Picky(torch.nn.Module):
    """The row of a table of 4 that each number names; raises for others."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4.0)[:, None].repeat(1, 4))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.table[X[:, 0]]  # type: ignore[index]
        return rows


def write_torchscript(folder: Path, datatype: str = "FP32") -> None:
    """`model.pt`."""
    save_script(torch_script(SumAndScaled()), folder)
    write_config(folder, config(datatype))


def write_exported(folder: Path, datatype: str = "FP32") -> None:
    """`model.pt2`, which says all of itself."""
    a, b = (torch.ones(3, 4, dtype=DTYPES[datatype]) for _ in range(2))
    save_program(exported(AsDict(), a, b), folder)
    write_config(folder, BATCHED)


def write_state_dict(folder: Path, datatype: str = "FP32") -> None:
    """`model.safetensors` and `model.py`."""
    dtype = DTYPES[datatype]
    path = version_dir(folder) / "model.safetensors"
    safetensors.torch.save_file({"scale": torch.tensor(2, dtype=dtype)}, path)
    (path.parent / "model.py").write_text(textwrap.dedent(SOURCE))
    name = str(dtype).removeprefix("torch.")
    parameter = f'parameters {{ key: "dtype" value: {{ string_value: "{name}" }} }}'
    write_config(folder, f"{config(datatype)}\n{parameter}")


def write_aoti(folder: Path, datatype: str = "FP32") -> None:
    """`model.pt2`, compiled for this machine: it takes seconds once in a process, and needs a C++ compiler."""
    assert datatype == "FP32", "there is one package, since it takes so long to make"
    (version_dir(folder) / "model.pt2").write_bytes(compiled_package())
    write_config(folder, config(datatype))


def write_picky_script(folder: Path) -> None:
    """X, INT64 [1] → Y, FP32 [4]."""
    save_script(torch_script(Picky()), folder)
    write_config(folder, PICKY)


def write_picky_program(folder: Path) -> None:
    """The same, exported."""
    save_program(exported(Picky(), torch.zeros(3, 1, dtype=torch.int64)), folder)
    output = 'output { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }'
    write_config(folder, f"{BATCHED}{output}")


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
        with inductor_config.patch(options):
            torch._inductor.aoti_compile_and_package(exported(AsDict()), package_path=str(path))
        return path.read_bytes()


def config(datatype: str) -> str:
    """Of the network, for files that don't tell it."""
    tensors = {"input": ("A", "B"), "output": ("SUM", "SCALED")}
    return BATCHED + "\n".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: [ 4 ] }}'
        for kind, names in tensors.items()
        for name in names
    )


def write_config(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(text)


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
    shapes = tuple(pytree.tree_map(lambda _: free, each) for each in example)
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


WRITERS: dict[str, Callable[..., None]] = {
    "torchscript": write_torchscript,
    "exported": write_exported,
    "state_dict": write_state_dict,
    "aoti": write_aoti,
}
