"""The same small network for every backend, written as its own files: what `tests/backends/test_conformance.py` and
`tests/e2e/test_backends.py` ask of them all. A backend is added by a `BackendCase` in CASES, whose functions may stand
in a file of their own."""

from __future__ import annotations

import importlib
import platform
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import load, numpy_helper, save

import mlflow_models
import tensorrt_models
from model_files import write_onnx, write_python
from penstock.backends.openvino_library import openvino
from penstock.types import Array

DIMS: Final = 4
MAX_BATCH_SIZE: Final = 8
ROWS: Final = 4
"""Of the table that the picky model looks into."""
FAR: Final = 2**40
"""A row that no table has."""
BATCHED: Final = f"max_batch_size: {MAX_BATCH_SIZE}\ndynamic_batching {{ }}\n"


@dataclass(frozen=True, slots=True)
class BackendCase:
    """A backend, and what writes models for it."""

    name: str
    """Of this case: a backend may have several."""
    backend: str
    """What the model's metadata call it, or its platform."""
    extension: str
    """Of the table of extensions, where it has one of its own."""
    write: Callable[..., None]
    """`write(folder)`, or `write(folder, datatype)` for one of `datatypes`: a model's folder with all its files, whose
    model computes SUM = A + B and SCALED = A * 2 of tensors of dims [4], with max_batch_size 8."""
    file: str
    """The model's file in the version's folder, without which it can't be loaded."""
    datatypes: Sequence[str] = ("FP32", "INT32")
    write_picky: Callable[[Path], None] | None = None
    """A model of X, INT64 [1], that gives the row of that number of a table of 4 rows as Y, FP32 [4], whose elements
    are all that number, and fails for FAR. None: no request's data makes the backend fail."""
    damaged: bytes = b"this is no model"
    """What lies in the place of the file after an accident."""
    declares_dims: bool = True
    """The model itself says its dims: a configuration that says others is refused."""
    computes_all: bool = False
    """Gives all outputs, also where only some are asked for."""
    slow: bool = False
    """It takes seconds to import: no more workers of it than needed."""
    runs_code: bool = False
    """Its files are as good as pickles, and have to be allowed."""


def config_of(tensors: Mapping[str, Mapping[str, tuple[str, int]]]) -> str:
    """Inputs and outputs as config.pbtxt has them."""
    return BATCHED + "\n".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: [ {size} ] }}'
        for kind, named in tensors.items()
        for name, (datatype, size) in named.items()
    )


def network_config(datatype: str = "FP32") -> str:
    """Of the network, for backends whose files don't tell it."""
    tensor = (datatype, DIMS)
    return config_of(
        {"input": {"A": tensor, "B": tensor}, "output": {"SUM": tensor, "SCALED": tensor}}
    )


def write_config(folder: Path, text: str) -> None:
    """The model's config.pbtxt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(text)


# ── ONNX ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_onnx_network(folder: Path, datatype: str = "FP32") -> None:
    """SUM and SCALED as an ONNX file."""
    tensor: tuple[str, Sequence[int | str | None]] = (datatype, ["batch", DIMS])
    nodes = [("Add", ["A", "B"], ["SUM"]), ("Add", ["A", "A"], ["SCALED"])]
    write_onnx(folder, nodes, {"A": tensor, "B": tensor}, {"SUM": tensor, "SCALED": tensor})
    write_config(folder, BATCHED)


def write_onnx_picky(folder: Path) -> None:
    """Gathers rows of a table."""
    path = write_onnx(
        folder,
        [("Squeeze", ["X", "one"], ["row"]), ("Gather", ["table", "row"], ["Y"])],
        {"X": ("INT64", ["batch", 1])},
        {"Y": ("FP32", ["batch", DIMS])},
    )
    model = load(str(path))
    table = np.repeat(np.arange(ROWS, dtype=np.float32)[:, None], DIMS, axis=1)
    arrays: dict[str, Array] = {"table": table, "one": np.array([1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    save(model, str(path))
    write_config(folder, BATCHED)


# ── OpenVINO ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_openvino_network(folder: Path, datatype: str = "FP32") -> None:
    """The ONNX file in OpenVINO's own format."""
    write_onnx_network(folder, datatype)
    to_openvino(folder / "1" / "model.onnx")


def write_openvino_picky(folder: Path) -> None:
    """OpenVINO gives zeros for rows that are not there; it is FAR itself that can't be computed."""
    write_onnx_picky(folder)
    to_openvino(folder / "1" / "model.onnx")


def to_openvino(path: Path) -> None:
    """`model.onnx` becomes `model.xml` and `model.bin`."""
    ov = openvino()
    ov.save_model(ov.Core().read_model(path), path.with_name("model.xml"), compress_to_fp16=False)
    path.unlink()


# ── Python ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_decorated(folder: Path, datatype: str = "FP32") -> None:
    """As Penstock's own form has it."""
    write_python(
        folder,
        f"""
        import penstock
        from penstock import Spec

        T = Spec("{datatype}", {DIMS})

        @penstock.model(
            inputs={{"A": T, "B": T}}, outputs={{"SUM": T, "SCALED": T}}, max_batch_size={MAX_BATCH_SIZE}
        )
        class Network:
            def __call__(self, A, B):
                return {{"SUM": A + B, "SCALED": A + A}}
        """,
    )


def write_decorated_picky(folder: Path) -> None:
    """Raises IndexError for FAR."""
    write_python(
        folder,
        f"""
        import numpy as np
        import penstock
        from penstock import Spec

        TABLE = np.repeat(np.arange({ROWS}, dtype=np.float32)[:, None], {DIMS}, axis=1)

        @penstock.model(
            inputs={{"X": Spec("INT64", 1)}},
            outputs={{"Y": Spec("FP32", {DIMS})}},
            max_batch_size={MAX_BATCH_SIZE},
        )
        class Picky:
            def __call__(self, X):
                return {{"Y": TABLE[X[:, 0]]}}
        """,
    )


def write_triton_python(folder: Path, datatype: str = "FP32") -> None:
    """As Triton's Python backend has it."""
    write_python(folder, _TRITON.format(inputs='"A", "B"', body=_SUM))
    write_config(folder, f'backend: "python"\n{network_config(datatype)}')


def write_triton_picky(folder: Path) -> None:
    """Answers FAR with an error of its own."""
    write_python(folder, _TRITON.format(inputs='"X"', body=_PICK))
    tensors = {"input": {"X": ("INT64", 1)}, "output": {"Y": ("FP32", DIMS)}}
    write_config(folder, f'backend: "python"\n{config_of(tensors)}')


_TRITON: Final = """
    import numpy as np
    import triton_python_backend_utils as pb_utils

    def answer(request):
        arrays = [
            pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ({inputs},)
        ]
        try:
            {body}
        except IndexError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, a) for n, a in outputs.items()])

    class TritonPythonModel:
        def execute(self, requests):
            return [answer(request) for request in requests]
"""
_SUM: Final = 'outputs = {"SUM": arrays[0] + arrays[1], "SCALED": arrays[0] + arrays[0]}'
_PICK: Final = (
    f"table = np.repeat(np.arange({ROWS}, dtype=np.float32)[:, None], {DIMS}, axis=1);"
    ' outputs = {"Y": table[arrays[0][:, 0]]}'
)


# ── MLflow ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_mlflow(folder: Path, datatype: str = "FP32") -> None:
    """A Python function, with the MLmodel file that MLflow would write: to have it do that takes seconds."""
    dtype = {"FP32": "float32", "INT32": "int32"}[datatype]
    tensors = [mlflow_models.tensors(*((n, dtype, (-1, DIMS)) for n in names)) for names in _NAMES]
    _write_function(folder, 'SUM=i["A"] + i["B"], SCALED=i["A"] + i["A"]', *tensors)


def write_mlflow_picky(folder: Path) -> None:
    """Raises IndexError for FAR."""
    table = f"np.repeat(np.arange({ROWS}, dtype=np.float32)[:, None], {DIMS}, axis=1)"
    inputs = mlflow_models.tensors(("X", "int64", (-1, 1)))
    outputs = mlflow_models.tensors(("Y", "float32", (-1, DIMS)))
    _write_function(folder, f'Y={table}[i["X"][:, 0]]', inputs, outputs)


_NAMES: Final = (("A", "B"), ("SUM", "SCALED"))


def _write_function(folder: Path, body: str, inputs: str, outputs: str) -> None:
    source = """
        import numpy as np
        from mlflow.models import set_model
        from mlflow.pyfunc.model import PythonModel

        class Network(PythonModel):
            def predict(self, context, model_input, params=None):
                i = model_input
                return dict({body})

        set_model(Network())
    """
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "network.py").write_text(textwrap.dedent(source).replace("{body}", body))
    function: Any = {
        "loader_module": "mlflow.pyfunc.model",
        "model_code_path": "network.py",
        "python_version": platform.python_version(),
        "streamable": False,
    }
    signature = {"inputs": inputs, "outputs": outputs, "params": None}
    mlflow_models.write_mlmodel(folder, {"python_function": function}, signature=signature)
    write_config(folder, BATCHED)


# ── torch, TensorRT ─────────────────────────────────────────────────────────────────────────────────────────────────


def torch_models(name: str) -> Callable[..., None]:
    """A function of `torch_models.py`, imported when it is called: torch takes seconds."""

    def write(folder: Path, *datatype: str) -> None:
        getattr(importlib.import_module("torch_models"), name)(folder, *datatype)

    return write


TORCH_TYPES: Final = ("FP32", "FP16", "BF16", "FP64", "INT8", "UINT8", "INT32", "INT64")

CASES: Final[tuple[BackendCase, ...]] = (
    BackendCase(
        "onnxruntime",
        "onnxruntime",
        "onnxruntime",
        write_onnx_network,
        "model.onnx",
        ("FP32", "FP16", "FP64", "INT32", "INT64"),
        write_picky=write_onnx_picky,
    ),
    BackendCase(
        "openvino",
        "openvino",
        "openvino",
        write_openvino_network,
        "model.xml",
        ("FP32", "FP16", "BF16", "FP64", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64"),
        write_picky=write_openvino_picky,
    ),
    BackendCase(
        # on a CPU: what runs in its place
        "tensorrt",
        "tensorrt",
        "tensorrt",
        tensorrt_models.write,
        "model.onnx",
        ("FP32", "FP16", "INT32", "INT64"),
        write_picky=tensorrt_models.write_picky,
    ),
    BackendCase(
        "decorated",
        "python",
        "python",
        write_decorated,
        "model.py",
        ("FP32", "FP16", "BF16", "FP64", "INT8", "UINT8", "INT32", "INT64"),
        write_picky=write_decorated_picky,
        computes_all=True,
    ),
    BackendCase(
        "triton_python",
        "python",
        "python",
        write_triton_python,
        "model.py",
        ("FP32", "FP16", "FP64", "INT8", "UINT8", "INT32", "INT64"),
        write_picky=write_triton_picky,
        declares_dims=False,
    ),
    BackendCase(
        "mlflow",
        "mlflow",
        "mlflow",
        write_mlflow,
        "MLmodel",
        write_picky=write_mlflow_picky,
        damaged=b"flavors: [",
        slow=True,
    ),
    BackendCase(
        "torchscript",
        "torch",
        "torch",
        torch_models("write_torchscript"),
        "model.pt",
        TORCH_TYPES,
        write_picky=torch_models("write_picky_script"),
        declares_dims=False,
        slow=True,
    ),
    BackendCase(
        "torch_export",
        "torch",
        "torch",
        torch_models("write_exported"),
        "model.pt2",
        write_picky=torch_models("write_picky_program"),
        slow=True,
        runs_code=True,
    ),
    BackendCase(
        "torch_class",
        "torch",
        "torch",
        torch_models("write_state_dict"),
        "model.safetensors",
        TORCH_TYPES,
        declares_dims=False,
        slow=True,
    ),
    *(
        [
            BackendCase(
                "torch_aoti",
                "torch",
                "torch",
                torch_models("write_aoti"),
                "model.pt2",
                ("FP32",),
                declares_dims=False,
                slow=True,
                runs_code=True,
            )
        ]
        if shutil.which("g++")
        else []
    ),
)
