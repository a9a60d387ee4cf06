"""Fixtures of the backends' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def import_state() -> Iterator[None]:
    """Undo what importing a model leaves behind, which in a worker lives as long as the model."""
    path = list(sys.path)
    modules = set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("penstock_model_", "triton_python_backend_utils", "sibling")):
            del sys.modules[name]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """The folder of a model called `tiny`, empty."""
    folder = tmp_path / "tiny"
    (folder / "1").mkdir(parents=True)
    return folder
