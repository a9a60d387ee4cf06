"""Settings of single tensors among a model's parameters: `PREFIX` TENSOR `.` KEY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.model_config import ConfigDict

Problem = tuple[str, str]
"""A parameter's key, and what is wrong with it."""


def by_tensor(
    config: ConfigDict, prefix: str, keys: Sequence[str]
) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """Tensor → what is said of it, and which parameters say nothing that is known. A tensor's name may have dots."""
    tensors: dict[str, dict[str, str]] = {}
    problems = []
    given: Mapping[str, Any] = config.get("parameters") or {}
    for key, parameter in given.items():
        if not key.startswith(prefix):
            continue
        name, _, what = key.removeprefix(prefix).rpartition(".")
        if name and what in keys:
            tensors.setdefault(name, {})[what] = str(parameter.get("string_value", ""))
        else:
            known = ", ".join(keys)
            problems.append((key, f"is not known; expected {prefix}TENSOR. and one of {known}"))
    return tensors, problems
