"""Compiles proto/ into the descriptor set that `penstock.protobuf` reads, for every install."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DESCRIPTORS = Path("server", "penstock", "descriptors.binpb")


class CompileProtocol(BuildHookInterface):
    """Hatchling's hook: runs before files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. The result is git-ignored and named as an artifact in pyproject.toml."""
        root = Path(self.root)
        compile_protocol(root / "proto", root / DESCRIPTORS)


def compile_protocol(proto: Path, target: Path) -> None:
    """Write one FileDescriptorSet of all .proto files under `proto`.

    Raises RuntimeError when protoc refuses them.
    """
    names = sorted(path.relative_to(proto).as_posix() for path in proto.rglob("*.proto"))
    # Another process may read the old file meanwhile.
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    arguments = [f"-I{proto}", f"--descriptor_set_out={unfinished}", "--include_imports", *names]
    if not names or protoc.main(["protoc", *arguments]) != 0:
        raise RuntimeError(f"protoc could not compile the .proto files of {proto}")
    unfinished.replace(target)
