"""A table of the settings file: settings of one matter, with flags and variables for those that are one value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""Of names, with `*`, `?` and `[…]` as in a shell."""
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """Base of all tables. Fields of one value, and of several texts, have a flag and a variable of their own; tables
    within a table are for the file alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None
        if isinstance(value, str) and _is_texts(cls.model_fields[info.field_name]):
            return tuple(filter(None, value.split(",")))
        return value

    @field_validator("*")
    @classmethod
    def _make_absolute(cls, value: object) -> object:
        # other processes read the settings in other folders
        if isinstance(value, tuple):
            return tuple(cls._make_absolute(item) for item in value)
        return value.expanduser().absolute() if isinstance(value, Path) else value

    @classmethod
    def flagged(cls) -> Iterator[tuple[str, FieldInfo]]:
        """The fields that have a flag."""
        for name, field in cls.model_fields.items():
            if _is_texts(field) or not _is_structured(field):
                yield name, field


def state_folder() -> Path:
    """Where what outlives a run lies, unless settings say otherwise."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "penstock"


def beside(section: type[Section], values: Any, folder: Path) -> Any:
    """The table, with its paths relative to that folder. What is no table is left for others to refuse."""
    if not isinstance(values, Mapping):
        return values
    return {name: _beside(section, name, value, folder) for name, value in values.items()}


def kinds_of(annotation: Any) -> Iterator[Any]:
    """The classes that an annotation is made of: `tuple[Path, ...] | None` of Path and NoneType."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
    elif origin in (Union, UnionType, tuple, dict, Mapping):
        for part in get_args(annotation):
            yield from kinds_of(part)
    else:
        # Annotated
        yield from kinds_of(get_args(annotation)[0])


def _beside(section: type[Section], name: str, value: Any, folder: Path) -> Any:
    field = section.model_fields.get(name)
    if field is None:
        return value
    kinds = list(kinds_of(field.annotation))
    if isinstance(value, str) and Path in kinds:
        return folder / Path(value).expanduser()
    if isinstance(value, list) and Path in kinds:
        return [folder / Path(v).expanduser() if isinstance(v, str) else v for v in value]
    inner = section_of(field)
    if inner is None:
        return value
    if isinstance(value, list):
        return [beside(inner, item, folder) for item in value]
    if isinstance(value, Mapping) and get_origin(field.annotation) is not None:
        return {key: beside(inner, item, folder) for key, item in value.items()}
    return beside(inner, value, folder)


def section_of(field: FieldInfo) -> type[Section] | None:
    """The kind of table that a field is, or holds several of."""
    return next((kind for kind in kinds_of(field.annotation) if _is_section(kind)), None)


def _is_texts(field: FieldInfo) -> bool:
    """A tuple of texts, numbers or paths."""
    return get_origin(field.annotation) is tuple and not _has_section(field)


def _is_structured(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (tuple, dict, Mapping) or _has_section(field)


def _has_section(field: FieldInfo) -> bool:
    return any(map(_is_section, kinds_of(field.annotation)))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
