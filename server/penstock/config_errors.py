"""What is wrong with settings, in words of the settings' own: pydantic's are of Python, and its types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from penstock.config_section import section_of
from penstock.quota_config import SECRET_IN_URL
from penstock.secrets_config import BAD_REFERENCE

Location = Sequence[int | str]

UNSHOWN: Final = (BAD_REFERENCE, SECRET_IN_URL)
"""Errors of values that may be a secret themselves, or hold one."""
_NAMES: Final = ("issuer", "uri", "dns", "subject")
"""What tells one table of a list from the others better than its number."""
_EXPECTED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("float_parsing", "float_type"), "expected a number"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "expected a table"),
    **dict.fromkeys(
        ("byte_size", "byte_size_unit"), "expected a number of bytes, or a size such as 64MiB"
    ),
    "string_type": "expected text",
    "path_type": "expected a path",
    "missing": "is needed, and missing",
}
"""By pydantic's type of error."""


def explained(source: str, error: Mapping[str, Any]) -> str:
    """One of pydantic's errors, with where its value came from."""
    kind, message = str(error["type"]), _worded(error)
    if not source:
        return message
    if kind == "missing" or kind in UNSHOWN:
        return f"{source}: {message}"
    if kind == "value_error" and isinstance(error["input"], Mapping):
        # of a whole table
        return f"{source}: {message}"
    return f"{source}: {message} (got {shown(error['input'])})"


def no_such_setting(source: str, name: str, known: Iterable[str]) -> str:
    """The error of a name that there is not, with the nearest one that there is."""
    near = get_close_matches(name, list(known), n=1)
    return f"{source}: there is no such setting{f', did you mean {near[0]}?' if near else ''}"


def fields_at(cls: type[BaseModel], location: Location) -> Iterable[str]:
    """The settings that there are at a place in the tables."""
    inner: type[BaseModel] | None = cls
    for part in location:
        field = None if inner is None else inner.model_fields.get(str(part))
        # a number, or a name that the file has chosen: what is in it is of the same kind
        inner = inner if field is None else section_of(field)
    return () if inner is None else inner.model_fields


def path_of(location: Location, given: object) -> str:
    """`access.jwt.0 (issuer 'https://example.org').audience`."""
    path = ""
    for part in location:
        path += f".{part}" if path else str(part)
        try:
            given = given[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            given = None
        if isinstance(part, int) and isinstance(given, Mapping):
            named = ((n, given[n]) for n in _NAMES if isinstance(given.get(n), str))
            path += next((f" ({name} {shown(text)})" for name, text in named), "")
    return path


def shown(value: object, limit: int = 80) -> str:
    """A value as a file would have it; of lists and tables only what they are."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= limit else text[:limit] + "…"


def _worded(error: Mapping[str, Any]) -> str:
    kind, message = str(error["type"]), str(error["msg"]).removeprefix("Value error, ")
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "value_error":
        return message
    message = re.sub(r"^Input should be (?=(greater|less) than)", "expected a number ", message)
    message = re.sub(r"^Input should be (a valid )?", "expected ", message)
    message = re.sub(r"^(String|Tuple) should (match|have) ", _should, message)
    return f"{message[0].lower()}{message[1:]}"


def _should(found: re.Match[str]) -> str:
    noun = "text" if found[1] == "String" else "a list"
    return f"expected {noun} {'that matches' if found[2] == 'match' else 'of'} "
