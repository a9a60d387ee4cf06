"""The parameters that a model's signature declares, taken from those of requests."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from penstock.errors import InvalidRequest, LoadFailed
from penstock.types import Parameter

INT_BITS: Final = {"integer": 31, "long": 63}
FLOATS: Final = ("float", "double")
TYPES: Final = (*INT_BITS, *FLOATS, "boolean", "string", "datetime", "object")


@dataclass(frozen=True, slots=True)
class Param:
    """One of them."""

    name: str
    type: str
    default: Any
    is_list: bool

    def read(self, given: Parameter) -> Any:
        """The value that a request gives. Raises InvalidRequest."""
        if not self.is_list and self.type != "object":
            return self._checked(given)
        try:
            value = json.loads(given) if isinstance(given, str) else None
        except ValueError:
            value = None
        if self.is_list and isinstance(value, list):
            return [self._checked(each) for each in value]
        if not self.is_list and isinstance(value, dict):
            return value
        raise self._wrong(given)

    def _checked(self, given: Any) -> Any:
        is_int = isinstance(given, int) and not isinstance(given, bool)
        if self.type in INT_BITS and is_int and -1 <= given >> INT_BITS[self.type] <= 0:
            return given
        if self.type in FLOATS and (is_int or isinstance(given, float)):
            return float(given)
        if self.type == "boolean" and isinstance(given, bool):
            return given
        if self.type == "string" and isinstance(given, str):
            return given
        if self.type == "datetime" and isinstance(given, str):
            try:
                return datetime.fromisoformat(given)
            except ValueError:
                pass
        raise self._wrong(given)

    def _wrong(self, given: object) -> InvalidRequest:
        expected = f"a JSON list of {self.type}" if self.is_list else f"a {self.type}"
        if self.type == "object":
            expected = "a JSON object"
        return InvalidRequest(
            f"parameter {self.name!r} is {repr(given)[:100]}, expected {expected}"
        )


class Params:
    """All that a model declares."""

    def __init__(self, params: Sequence[Param]) -> None:
        self._params = {param.name: param for param in params}

    def __bool__(self) -> bool:
        return bool(self._params)

    def key(self, given: Mapping[str, Parameter]) -> Hashable:
        """Equal for requests that give the same values."""
        # 1, 1.0 and True are equal, and not the same here
        return tuple((n, type(given[n]), given[n]) for n in self._params if n in given)

    def read(self, given: Mapping[str, Parameter]) -> dict[str, Any]:
        """The value of each, from a request or else the default. Raises InvalidRequest."""
        return {
            name: param.read(given[name]) if name in given else param.default
            for name, param in self._params.items()
        }


def parse_params(text: object, where: str) -> Params:
    """As the MLmodel file has them: JSON, or nothing. Raises LoadFailed."""
    if text is None:
        return Params(())
    try:
        given = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise LoadFailed(f"{where} is no JSON: {error}") from error
    if not isinstance(given, list):
        raise LoadFailed(f"{where} is {repr(given)[:100]}, expected a list of parameters")
    return Params([_param(each, f"{where}[{index}]") for index, each in enumerate(given)])


def _param(given: object, where: str) -> Param:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise LoadFailed(f"{where} is {repr(given)[:100]}, expected a mapping with name and type")
    # MLflow 2.6 called it dtype
    kind = given.get("type") or given.get("dtype")
    if kind not in TYPES:
        raise LoadFailed(f"{where} has type {kind!r}, expected one of {', '.join(TYPES)}")
    is_list = given.get("shape") is not None
    return Param(given["name"], kind, _default(given.get("default"), kind, where), is_list)


def _default(given: Any, kind: str, where: str) -> Any:
    if kind != "datetime" or given is None:
        return given
    try:
        if isinstance(given, list):
            return [datetime.fromisoformat(each) for each in given]
        return datetime.fromisoformat(given)
    except (TypeError, ValueError) as error:
        raise LoadFailed(f"{where} has default {given!r}, expected ISO 8601: {error}") from error
