"""Where a configuration comes from: a TOML file, and `--set NAME=VALUE` over it. Errors say in which line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock.config_errors import explained, fields_at
from penstock.config_section import beside
from penstock.errors import ConfigError
from penstock_training.config import TrainConfig


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Raises ConfigError that names file, line and setting, and what was expected."""
    text = _text_of(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    set_here: set[tuple[str, ...]] = set()
    for override in overrides:
        set_here.add(_set(values, override))
    given = _beside(path.absolute().parent, values)
    try:
        return TrainConfig.model_validate(given)
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors(include_url=False)[0])
        location = tuple(str(part) for part in first["loc"])
        source = where(path, text, location, set_here)
        raise ConfigError(_worded(source, first, location)) from None


def line_of(text: str, location: Sequence[str]) -> int | None:
    """The line where a file gives `a.b.c`, counted from 1; None: it does not.

    The shortest beginning of the file that is TOML and has it ends with that value; the longest before that which has
    it not ends before the value.
    """
    lines = text.splitlines()
    without = 0
    for end in range(1, len(lines) + 1):
        try:
            values = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        if _has(values, location):
            return without + 1
        without = end
    return None


def where(path: Path, text: str, location: Sequence[str], set_here: set[tuple[str, ...]]) -> str:
    """`digits.toml:12: optimizer.learning_rate`, or `--set optimizer.learning_rate`."""
    name = ".".join(location)
    for end in range(len(location), 0, -1):
        if tuple(location[:end]) in set_here:
            return f"--set {name}"
        if (line := line_of(text, location[:end])) is not None:
            return f"{path}:{line}: {name}"
    return f"{path}: {name}" if name else str(path)


def setting_in(path: Path, *location: str) -> str:
    """Where a file has a setting that turned out wrong later."""
    try:
        text = path.read_text()
        tomllib.loads(text)
    except (OSError, ValueError):
        text = ""
    return where(path, text, location, set())


def _worded(source: str, error: Mapping[str, Any], location: Sequence[str]) -> str:
    if error["type"] != "extra_forbidden":
        return explained(source, error)
    *above, name = location
    known = fields_at(TrainConfig, above)
    named = (
        [TrainConfig.model_fields[field].alias or field for field in known]
        if not above
        else list(known)
    )
    near = get_close_matches(name, named, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(named))}"
    return f"{source}: there is no such setting; {hint}"


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _set(values: dict[str, Any], override: str) -> tuple[str, ...]:
    """`optimizer.learning_rate=3e-4`. A value that is no TOML is text."""
    name, equals, text = override.partition("=")
    parts = tuple(name.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {override}: expected NAME=VALUE, such as optimizer.learning_rate=3e-4"
        )
    inner = values
    for part in parts[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {part} is no table")
    inner[parts[-1]] = _value(text.strip())
    return parts


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _beside(folder: Path, values: dict[str, Any]) -> Any:
    """Paths are relative to the configuration's folder: those of settings, of recipes that are files, and of tables."""
    given = dict(beside(TrainConfig, values, folder))
    recipe = given.get("recipe")
    if isinstance(recipe, Mapping) and isinstance(recipe.get("name"), str):
        given["recipe"] = {**recipe, "name": _file_beside(folder, recipe["name"])}
    data = given.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("tables"), Mapping):
        tables = {name: _table_beside(folder, table) for name, table in data["tables"].items()}
        given["data"] = {**data, "tables": tables}
    return given


def _file_beside(folder: Path, name: str) -> str:
    file, colon, cls = name.rpartition(":")
    path = file if colon else name
    return f"{folder / path}{colon}{cls if colon else ''}" if path.endswith(".py") else name


def _table_beside(folder: Path, table: Any) -> Any:
    if not isinstance(table, Mapping) or not isinstance(table.get("uri"), str):
        return table
    uri = table["uri"]
    return table if "://" in uri else {**table, "uri": str(folder / Path(uri).expanduser())}


def _has(values: Any, location: Sequence[str]) -> bool:
    for part in location:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return False
    return True
