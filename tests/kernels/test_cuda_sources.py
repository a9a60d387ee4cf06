"""Every CUDA source compiles for every architecture that is supported. Needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_kernels.cuda import compiler


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", compiler.source_names())
def test_compiles(name: str, arch: str) -> None:
    assert compiler.compile_source(name, arch)[:4] == b"\x7fELF"


def test_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiler.compile_source("activations", "sm_90", tmp_path)
    monkeypatch.setattr(compiler, "Program", None)
    assert compiler.compile_source("activations", "sm_90", tmp_path) == first
    with pytest.raises(compiler.CompileFailed):
        compiler.compile_source("activations", "sm_80", tmp_path)


def test_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "source_of", lambda name: "extern int nothing(")
    with pytest.raises(compiler.CompileFailed, match=r"wrong\.cu for sm_90"):
        compiler.compile_source("wrong", "sm_90")
