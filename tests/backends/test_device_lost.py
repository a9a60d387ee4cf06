"""Which exceptions say that a process has lost its GPU: the libraries' own classes, with their own texts."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from model_files import batch_of
from penstock.backends.base import Batch, Outputs
from penstock.backends.device_lost import (
    STICKY,
    CudaFailed,
    DeviceLost,
    check_said,
    lost_reason,
)
from penstock.backends.device_memory import is_out_of_device_memory
from penstock.backends.isolation import run_isolated
from penstock.errors import ModelFailed

# compiled, and without stubs
ort: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")

ILLEGAL = "CUDA error: an illegal memory access was encountered"
OF_TORCH = f"""{ILLEGAL}
Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda/ for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""
OF_SCRIPT = f"""The following operation failed in the TorchScript interpreter.
Traceback of TorchScript (most recent call last):
  File "<string>", line 3, in forward
RuntimeError: {ILLEGAL}
"""
OF_ONNX_RUNTIME = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'m' Status"
    " Message: CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; file=f ; line=1 ;"
    " expr=cudaStreamSynchronize(stream)"
)
OF_TENSORRT = (
    "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (unspecified launch failure)"
)


class Foreign(Exception):
    """Of a package that says the error's name; each names its own module."""


Foreign.__module__ = "cupy_backends.cuda.api.runtime"


def accelerator_error(text: str, code: int) -> Exception:
    """As torch makes it in C++: the code is an attribute."""
    error: Any = torch.AcceleratorError(text)
    error.error_code = code
    return error  # type: ignore[no-any-return]


def core_error(code: int) -> Exception:
    """What cuda.core raises for a code of the runtime."""
    utils = pytest.importorskip("cuda.core._utils.cuda_utils")
    runtime = pytest.importorskip("cuda.bindings.runtime")
    try:
        utils.handle_return((runtime.cudaError_t(code),))
    except Exception as error:  # noqa: BLE001 (it is what the test is about)
        return error
    raise AssertionError("it is an error")


LOST: dict[str, Callable[[], BaseException]] = {
    "torch": lambda: accelerator_error(OF_TORCH, 700),
    "torch without a code": lambda: torch.AcceleratorError(OF_TORCH),
    "an older torch": lambda: RuntimeError(OF_TORCH),
    "TorchScript": lambda: RuntimeError(OF_SCRIPT),
    "onnxruntime": lambda: ort.Fail(OF_ONNX_RUNTIME),
    "onnxruntime's own": lambda: ort.EPFail(
        "CUDA failure 710: device-side assert triggered ; GPU=0"
    ),
    "cuda.core": lambda: core_error(719),
    "the driver": lambda: CudaFailed(214, "CUDA_ERROR_ECC_UNCORRECTABLE"),
    "cupy": lambda: Foreign("cudaErrorMisalignedAddress: misaligned address"),
}
KEPT: dict[str, Callable[[], BaseException]] = {
    "out of memory, torch": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to …"),
    "out of memory, code": lambda: accelerator_error("CUDA error: out of memory", 2),
    "out of memory, onnxruntime": lambda: ort.Fail("CUDA failure 2: out of memory ; GPU=0"),
    "out of memory, driver": lambda: CudaFailed(2, "CUDA_ERROR_OUT_OF_MEMORY"),
    "out of memory, cuda.core": lambda: core_error(2),
    "a wrong argument": lambda: accelerator_error("CUDA error: invalid argument", 1),
    "a capture": lambda: RuntimeError(
        "CUDA error: operation not permitted when stream is capturing"
    ),
    "cuBLAS": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling …"),
    "what a client sent": lambda: ValueError(OF_TORCH),
    "what a client sent, quoted": lambda: RuntimeError(f"no such word: {OF_TORCH}"),
    "what a client sent, in lines": lambda: RuntimeError(f"no such word:\n{OF_TORCH}"),
    "what a client sent to onnxruntime": lambda: ort.Fail("CUDA failure 7000: "),
    "ours": lambda: ModelFailed(OF_TORCH),
}


@pytest.fixture
def cuda_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)


@pytest.mark.parametrize("text", [OF_TORCH, OF_SCRIPT])
def test_where_torch_uses_no_gpu_a_runtime_error_is_the_models_own(text: str) -> None:
    assert not lost_reason(RuntimeError(text))


@pytest.mark.usefixtures("cuda_in_use")
@pytest.mark.parametrize("name", LOST)
def test_an_error_that_stays(name: str) -> None:
    error = LOST[name]()
    assert lost_reason(error) == " ".join(str(error).split())
    assert not is_out_of_device_memory(error)


@pytest.mark.parametrize("name", KEPT)
def test_an_error_that_passes(name: str) -> None:
    error = KEPT[name]()
    assert lost_reason(error) == ""
    assert is_out_of_device_memory(error) == name.startswith("out of memory")


def test_what_it_was_raised_for_counts() -> None:
    own = ModelFailed("PyTorch: it failed")
    own.__cause__ = accelerator_error(OF_TORCH, 700)
    assert lost_reason(own).startswith(ILLEGAL)
    unrelated = ModelFailed("a wrong shape")
    unrelated.__context__ = own
    assert lost_reason(unrelated).startswith(ILLEGAL)
    unrelated.__suppress_context__ = True
    assert lost_reason(unrelated) == ""
    own.__cause__ = own
    assert lost_reason(own) == ""


def test_what_tensorrt_logs() -> None:
    with pytest.raises(DeviceLost, match="unspecified launch failure"):
        check_said(OF_TENSORRT)
    check_said("Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
    check_said("Error Code 1: Cuda Runtime (out of memory)")


def test_names_and_texts_are_cudas() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    driver = pytest.importorskip("cuda.bindings.driver")
    for code, each in STICKY.items():
        assert runtime.cudaError_t(code).name == each.runtime
        assert driver.CUresult(code).name == each.driver
        _, text = runtime.cudaGetErrorString(runtime.cudaError_t(code))
        assert text.decode() == each.text


def test_all_that_nvidia_says_it_of_are_known() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    told = {int(e) for e in runtime.cudaError_t if "terminated and relaunched" in _doc(e)}
    assert told
    assert told <= STICKY.keys()
    # of hardware: it says nothing of what comes after
    assert STICKY.keys() - told == {214, 220}


def _doc(member: object) -> str:
    return " ".join((member.__doc__ or "").split())


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_is_not_run_again_in_a_process_that_lost_its_gpu(rows: int) -> None:
    calls: list[Batch] = []

    def run(batch: Batch) -> Outputs:
        calls.append(batch)
        try:
            raise accelerator_error(OF_TORCH, 700)
        except RuntimeError as error:
            raise ModelFailed("PyTorch: it failed") from error

    arrays = [{"X": np.zeros((1, 1), np.float32)} for _ in range(rows)]
    with pytest.raises(DeviceLost, match="illegal memory access"):
        run_isolated(run, batch_of(*arrays))
    assert len(calls) == 1


def test_one_that_shows_while_requests_run_alone() -> None:
    def run(batch: Batch) -> Outputs:
        if len(batch.requests) > 1:
            raise ValueError("one of them is bad")
        raise accelerator_error(OF_TORCH, 700)

    with pytest.raises(DeviceLost):
        run_isolated(run, batch_of(*[{"X": np.zeros((1, 1), np.float32)} for _ in range(2)]))
