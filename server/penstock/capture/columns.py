"""Which columns the table of a model's records has: those of all tables, and those of the tensors that a rule keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from penstock.capture_config import CaptureRule
from penstock.model_config import ModelConfig, Tensor

Role = Literal["input", "output"]
Kind = Literal["numbers", "bytes", "text", "hash"]
"""What the column's lists hold; `hash`: hex digits."""

_UNFIT: Final = re.compile(r"[ ,;{}()\n\t=]")
"""In names of a Delta table's columns."""


class Column(msgspec.Struct, frozen=True, array_like=True):
    """One tensor's column. Beside it there is one of its shapes."""

    name: str
    role: Role
    tensor: str
    datatype: str
    kind: Kind

    @property
    def shape_name(self) -> str:
        """The name of the column of its shapes."""
        return f"shape_{self.name}"


class Table(msgspec.Struct, frozen=True, array_like=True, tag="table"):
    """Of one version of a model, under one rule."""

    number: int
    """By which records name it, while one gateway runs."""
    model: str
    version: int
    sample: float
    columns: tuple[Column, ...]
    """Inputs first, both in the model's order."""
    max_string_bytes: int = 0
    """Of elements of BYTES tensors; 0: all."""

    @property
    def inputs(self) -> tuple[Column, ...]:
        """Those of inputs."""
        return tuple(column for column in self.columns if column.role == "input")

    @property
    def outputs(self) -> tuple[Column, ...]:
        """Those of outputs."""
        return tuple(column for column in self.columns if column.role == "output")


def table_of(number: int, version: int, config: ModelConfig, rule: CaptureRule) -> Table:
    """What the rule keeps of that model."""
    taken: set[str] = set()
    columns = (
        *_columns("input", config.input, rule, taken),
        *_columns("output", config.output, rule, taken),
    )
    return Table(number, config.name, version, rule.sample, columns, rule.max_string_bytes)


def _columns(
    role: Role, tensors: Iterable[Tensor], rule: CaptureRule, taken: set[str]
) -> Iterable[Column]:
    for tensor in tensors:
        if rule.keeps(tensor.name):
            kind = _kind(tensor, rule)
            yield Column(
                _name(f"{role}_{tensor.name}", taken), role, tensor.name, tensor.datatype, kind
            )


def _kind(tensor: Tensor, rule: CaptureRule) -> Kind:
    if rule.hashes(tensor.name):
        return "hash"
    if tensor.datatype != "BYTES":
        return "numbers"
    return "text" if rule.is_text(tensor.name) else "bytes"


def _name(wanted: str, taken: set[str]) -> str:
    """The column's name, which no other one has."""
    name = fit = _UNFIT.sub("_", wanted)
    count = 1
    while name in taken:
        count += 1
        name = f"{fit}_{count}"
    taken.add(name)
    return name
