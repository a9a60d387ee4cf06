"""The pytorch flavour: a TorchScript archive, a pickled module, or a program of torch.export."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from penstock.backends.mlflow_flavors import Flavor, Plain, check_pickles, module
from penstock.backends.mlflow_model_file import ModelFile
from penstock.backends.mlflow_schema import Kind, Schema
from penstock.errors import LoadFailed
from penstock.types import Array


class Torch(Plain):
    """A module of PyTorch."""

    def __init__(
        self, torch: Any, module: Any, schema: Schema, sizes: tuple[tuple[int, ...], ...]
    ) -> None:
        self._torch = torch
        # it imports torch, which only models of this flavour need
        self._tensors = import_module("penstock.backends.torch_tensors")
        self._module = module
        self._columns = schema.columns
        self._labels = [field.label for field in schema.fields]
        self._sizes = sizes

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Tensors are given in the signature's order, a table as one tensor of FP32; parameters by name."""
        if self._columns:
            arrays = [data.to_numpy(dtype=np.float32)]
        elif isinstance(data, Mapping):
            arrays = [data[label] for label in self._labels]
        else:
            arrays = [data]
        with self._torch.inference_mode():
            returned = self._module(*map(self._tensor, arrays), **params)
        return self._tensors.to_arrays(returned)

    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Those that it was exported with."""
        return self._sizes

    def _tensor(self, array: Array) -> Any:
        # the module may write into its inputs, which are to be as they were if it is run again
        return self._tensors.to_tensor(np.array(array))


def load_pytorch(file: ModelFile, schema: Schema, threads: int) -> Flavor:
    texts = [field.name for field in schema.fields if field.kind is not Kind.NUMBER]
    if texts:
        raise LoadFailed(f"input {texts[0]!r} is a text, which no tensor of PyTorch can hold")
    torch = module("torch", "torch")
    torch.set_num_threads(threads)
    folder = torch_folder(file)
    exported, pickled = folder / "model.pt2", folder / "model.pth"
    if pickled.is_file():
        return Torch(torch, _of_pickle(torch, folder, pickled).eval(), schema, ())
    if not exported.is_file():
        raise LoadFailed(f"{folder} holds neither model.pt2 nor model.pth")
    check_pickles(exported)
    program = torch.export.load(exported)
    return Torch(torch, program.module(), schema, _exported_sizes(program))


def _of_pickle(torch: Any, folder: Path, path: Path) -> Any:
    if is_torchscript(path):
        return torch.jit.load(str(path))
    check_pickles(path)
    info = folder / "pickle_module_info.txt"
    name = info.read_text().strip() if info.is_file() else "pickle"
    # what cloudpickle has written, as MLflow's own module does, is read by pickle
    by_cloudpickle = name in ("mlflow.pytorch.pickle_module", "cloudpickle")
    pickler = import_module("pickle" if by_cloudpickle else name)
    return torch.load(path, map_location="cpu", pickle_module=pickler, weights_only=False)


def torch_folder(file: ModelFile) -> Path:
    return file.inside("pytorch", "model_data", "data")


def is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _exported_sizes(program: Any) -> tuple[tuple[int, ...], ...]:
    """The shapes that an exported program was made for, -1 where any size is fine."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    shapes = []
    for name in program.graph_signature.user_inputs:
        value = nodes[name].meta.get("val") if name in nodes else None
        if value is None or not hasattr(value, "shape"):
            return ()
        shapes.append(tuple(size if isinstance(size, int) else -1 for size in value.shape))
    return tuple(shapes)
