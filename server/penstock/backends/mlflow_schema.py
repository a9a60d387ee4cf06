"""What an MLflow model takes and gives, in its own terms and in the protocol's: one Field for each tensor or column.

Read from the signature in a version's `MLmodel` file, or else from the configuration. MLflow itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from penstock.backends.completion import BATCH_DIM, ModelTensor
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

INPUT_PREFIX: Final = "input-"
OUTPUT_PREFIX: Final = "output-"
"""Before the position of what the signature gives no name; as MLServer calls them."""

MAX_DEPTH: Final = 16
"""Of arrays in arrays."""


class Kind(Enum):
    """What the elements are to the model."""

    NUMBER = "number"
    """Or a truth value."""
    TEXT = "text"
    BINARY = "binary"
    DATETIME = "datetime"
    """ISO 8601 on the wire."""
    JSON = "json"
    """An object, a map, or whatever: a JSON document on the wire."""


@dataclass(frozen=True, slots=True)
class Field:
    """A tensor, or a column of a table."""

    name: str
    """On the wire."""
    label: str | int
    """The model's own name for it; its position where it has none."""
    kind: Kind
    data_type: str
    """Triton's spelling: TYPE_FP32 …"""
    shape: tuple[int, ...]
    """With the batch dimension. That of a column ends in 1, or, of a column of arrays, in any sizes."""
    optional: bool = False

    @property
    def tensor(self) -> ModelTensor:
        """As configurations are completed by it."""
        return ModelTensor(self.name, self.data_type, self.shape, optional=self.optional)

    @property
    def is_scalar(self) -> bool:
        """It is a column of single values."""
        return self.shape == (BATCH_DIM, 1)


@dataclass(frozen=True, slots=True)
class Schema:
    """All inputs, or all outputs."""

    fields: tuple[Field, ...]
    columns: bool
    """Columns of a table; False: tensors."""
    named: bool
    """The model has names for them."""

    def renamed(self, names: Sequence[str]) -> Schema:
        """With names from a configuration, where the model has none and they are as many."""
        if self.named or len(names) != len(self.fields):
            return self
        named = zip(self.fields, names, strict=True)
        return replace(self, fields=tuple(replace(f, name=name) for f, name in named))


COLUMN_TYPES: Final[Mapping[str, tuple[Kind, str]]] = MappingProxyType(
    {
        "boolean": (Kind.NUMBER, "TYPE_BOOL"),
        "integer": (Kind.NUMBER, "TYPE_INT32"),
        "long": (Kind.NUMBER, "TYPE_INT64"),
        "float": (Kind.NUMBER, "TYPE_FP32"),
        "double": (Kind.NUMBER, "TYPE_FP64"),
        "string": (Kind.TEXT, "TYPE_STRING"),
        "binary": (Kind.BINARY, "TYPE_STRING"),
        "datetime": (Kind.DATETIME, "TYPE_STRING"),
        "object": (Kind.JSON, "TYPE_STRING"),
        "map": (Kind.JSON, "TYPE_STRING"),
        "any": (Kind.JSON, "TYPE_STRING"),
    }
)
"""MLflow's type of a column → ours."""

TENSOR_TYPES: Final[Mapping[str, tuple[Kind, str]]] = MappingProxyType(
    {
        "bool": (Kind.NUMBER, "TYPE_BOOL"),
        **{
            f"{sign}int{bits}": (Kind.NUMBER, f"TYPE_{sign.upper()}INT{bits}")
            for sign in ("", "u")
            for bits in (8, 16, 32, 64)
        },
        **{f"float{bits}": (Kind.NUMBER, f"TYPE_FP{bits}") for bits in (16, 32, 64)},
        "str": (Kind.TEXT, "TYPE_STRING"),
        "object": (Kind.TEXT, "TYPE_STRING"),
        "bytes": (Kind.BINARY, "TYPE_STRING"),
        "datetime64": (Kind.DATETIME, "TYPE_STRING"),
        "datetime64[ns]": (Kind.DATETIME, "TYPE_STRING"),
    }
)
"""NumPy's name of a dtype → ours."""


def parse_schema(text: object, where: str, prefix: str) -> Schema:
    """A signature's inputs or outputs, as MLmodel files have them: JSON. Raises LoadFailed that names the place."""
    try:
        given = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise LoadFailed(f"{where} is no JSON: {error}") from error
    if not isinstance(given, list) or not given or not all(isinstance(g, dict) for g in given):
        raise LoadFailed(f"{where} is {_short(given)}, expected a list of columns or tensors")
    tensors = [each.get("type") == "tensor" for each in given]
    names = [each.get("name") for each in given]
    if len(set(tensors)) > 1:
        raise LoadFailed(f"{where} mixes columns and tensors, expected only one of them")
    if None in names and any(name is not None for name in names):
        raise LoadFailed(f"{where} has names for some only, expected for all or for none")
    read: Callable[[Mapping[str, Any], str], Field] = _tensor if tensors[0] else _column
    fields = []
    for index, (each, name) in enumerate(zip(given, names, strict=True)):
        field = read(each, f"{where}[{index}]")
        # names of columns may be numbers
        own = f"{prefix}{index}" if name is None else str(name)
        fields.append(replace(field, name=own, label=index if name is None else name))
    if len({field.name for field in fields}) < len(fields):
        raise LoadFailed(f"{where} has a name twice: {', '.join(f.name for f in fields)}")
    if tensors[0] and len(fields) > 1 and None in names:
        raise LoadFailed(f"{where} has several tensors without names, expected names")
    return Schema(tuple(fields), columns=not tensors[0], named=None not in names)


def configured_schema(config: ConfigDict, key: str, *, columns: bool | None) -> Schema:
    """What the configuration says of `input` or `output`, of a model without a signature.

    `columns` None: several tensors of one element each are columns. Raises LoadFailed on what has no data_type or dims.
    """
    batching = bool(config.get("max_batch_size"))
    fields = []
    for tensor in config[key]:
        data_type, dims = tensor.get("data_type") or "TYPE_INVALID", tensor.get("dims") or ()
        if data_type == "TYPE_INVALID" or (not dims and tensor.get("reshape") is None):
            raise LoadFailed(
                f"{key} {tensor['name']!r} has no data_type or no dims, and the model has no signature that says them"
            )
        reshape = tensor.get("reshape")
        own = tuple(dims if reshape is None else reshape.get("shape") or ())
        shape = (BATCH_DIM, *own) if batching else own
        kind = Kind.TEXT if data_type == "TYPE_STRING" else Kind.NUMBER
        optional = bool(tensor.get("optional"))
        fields.append(Field(tensor["name"], tensor["name"], kind, data_type, shape, optional))
    if columns is None:
        columns = len(fields) > 1 and all(field.shape[-1:] == (1,) for field in fields)
    # the only tensor needs no name; a table's columns do, and which one of several it is
    return Schema(tuple(fields), columns=columns, named=columns or len(fields) > 1)


def _tensor(given: Mapping[str, Any], where: str) -> Field:
    spec = given.get("tensor-spec")
    if not isinstance(spec, dict) or not {"dtype", "shape"} <= spec.keys():
        raise LoadFailed(f"{where} has no tensor-spec with dtype and shape")
    dtype, shape = spec["dtype"], spec["shape"]
    if dtype not in TENSOR_TYPES:
        raise LoadFailed(
            f"{where} has dtype {_short(dtype)}, which can't be served; expected one of {', '.join(TENSOR_TYPES)}"
        )
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
        raise LoadFailed(f"{where} has shape {_short(shape)}, expected a list of sizes, -1 for any")
    kind, data_type = TENSOR_TYPES[dtype]
    return Field("", "", kind, data_type, tuple(shape))


def _is_size(size: object) -> bool:
    return type(size) is int and (size == BATCH_DIM or size > 0)


def _column(given: Mapping[str, Any], where: str) -> Field:
    # MLflow wrote no `required` before 2.5
    optional = given.get("required", True) is False
    inner, depth = _without_arrays(given)
    kind, data_type = _column_type(inner.get("type"), where)
    if kind is Kind.JSON and depth:
        depth = 0
    dims = (BATCH_DIM,) * depth or (1,)
    return Field("", "", kind, data_type, (BATCH_DIM, *dims), optional)


def _without_arrays(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """The type of an array's elements, and how many arrays there are around them."""
    depth = 0
    while given.get("type") == "array" and isinstance(given.get("items"), dict):
        given, depth = given["items"], depth + 1
        if depth > MAX_DEPTH:
            return {}, 0
    return ({"type": "double"}, 1) if given.get("type") == "sparkml_vector" else (given, depth)


def _column_type(name: object, where: str) -> tuple[Kind, str]:
    if not isinstance(name, str) or name not in COLUMN_TYPES:
        raise LoadFailed(
            f"{where} has type {_short(name)}, expected tensor, array, or one of {', '.join(COLUMN_TYPES)}"
        )
    return COLUMN_TYPES[name]


def _short(value: object) -> str:
    return repr(value)[:100]
