"""Which file of a model TensorRT runs, and which one runs in its place. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.backends.base import LoadSpec
from penstock.errors import LoadFailed

PLAN: Final = "model.plan"
ONNX: Final = "model.onnx"


@dataclass(frozen=True, slots=True)
class Files:
    """What a version's folder holds. Not neither."""

    plan: Path | None
    """An engine that was built before."""
    onnx: Path | None
    """What an engine is built of, where there is no plan; what ONNX Runtime runs, where TensorRT can't."""


def find_files(spec: LoadSpec) -> Files:
    """Raises LoadFailed that says what was expected where there is nothing."""
    named = spec.config.get("default_model_filename") or ""
    beside = _onnx(spec.version_dir / ONNX)
    if named.endswith(".onnx"):
        plan, onnx = None, _onnx(spec.version_dir / named)
        expected = str(spec.version_dir / named)
    else:
        path = spec.version_dir / (named or PLAN)
        plan, onnx = path if path.is_file() else None, beside
        expected = str(path) if named else f"{path} or {ONNX}"
        if named and plan is None:
            onnx = None
    if plan is None and onnx is None:
        raise LoadFailed(f"there is no model file: expected {expected}")
    return Files(plan, onnx)


def _onnx(path: Path) -> Path | None:
    """A folder of that name, with external weights, holds the file under its usual name."""
    if path.is_dir():
        path /= ONNX
    return path if path.is_file() else None


def onnx_filename(spec: LoadSpec, onnx: Path) -> str:
    """As `default_model_filename` has it."""
    return str(onnx.relative_to(spec.version_dir))
