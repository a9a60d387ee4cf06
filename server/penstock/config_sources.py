"""Where settings come from, and what is told of one that is wrong: flag > PENSTOCK_* > penstock.toml > default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from penstock.config import ENV_PREFIX, SECTIONS, Settings, flag_of, flagged_settings
from penstock.config_errors import Location, explained, fields_at, no_such_setting, path_of, shown
from penstock.config_section import beside
from penstock.errors import ConfigError
from penstock.platforms import PlatformSetting, platform_settings

DEFAULT_FILE: Final = Path("penstock.toml")


def load_settings(flags: Mapping[str, Any], file: Path | None = None) -> Settings:
    """The settings of this start. `flags`: what the command line gave, by setting's name.

    Reads PENSTOCK_* of the environment and what platforms say there, and `file`, or ./penstock.toml if there is one.
    Raises ConfigError that names setting, source, and what was expected.
    """
    return settings_and_sources(flags, file)[0]


def settings_and_sources(
    flags: Mapping[str, Any], file: Path | None = None
) -> tuple[Settings, Mapping[str, str]]:
    """As `load_settings`, with where each setting was given, by its name. Those that were not are left out."""
    path = file or DEFAULT_FILE
    from_file = _read_toml(path) if file or path.exists() else {}
    from_environment = _environment()
    platforms = platform_settings(os.environ, {*from_environment, *flags})
    from_platform = {name: setting.value for name, setting in platforms.items()}
    given = {**from_file, **from_platform, **from_environment, **flags}
    sources = {name: _source(name, flags, from_environment, platforms, path) for name in given}
    nested = _nested(given)
    try:
        return Settings(**nested), sources
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors(include_url=False)[0])
        source = _source_of(first["loc"], sources, path, nested)
        raise ConfigError(_explained(source, first)) from None


def _explained(source: str, error: dict[str, Any]) -> str:
    if error["type"] != "extra_forbidden":
        return explained(source, error)
    *above, name = error["loc"]
    if above:
        return no_such_setting(source, str(name), fields_at(Settings, above))
    return no_such_setting(
        source, name, [*Settings.model_fields, *(n for n, _ in flagged_settings())]
    )


def _environment() -> dict[str, Any]:
    """What PENSTOCK_* say, by setting's name."""
    found = EnvSettingsSource(Settings, env_ignore_empty=True)()
    values = {name: value for name, value in found.items() if name not in SECTIONS}
    for section, cls in SECTIONS.items():
        for field, _ in cls.flagged():
            name = f"{section}_{field}"
            if value := os.environ.get(f"{ENV_PREFIX}{name.upper()}"):
                values[name] = value
    return values


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flat names → tables."""
    nested = {name: value for name, value in given.items() if _section_of(name) is None}
    for name, value in given.items():
        if (section := _section_of(name)) is not None:
            table = nested.get(section, {})
            if isinstance(table, Mapping):
                nested[section] = {**table, name.removeprefix(f"{section}_"): value}
    return nested


def _section_of(name: str) -> str | None:
    """The table that a flat name belongs to."""
    if name in Settings.model_fields:
        # access_log is no field of [access]
        return None
    section, _, field = name.partition("_")
    return section if field and section in SECTIONS else None


def _source_of(location: Location, sources: Mapping[str, str], file: Path, given: object) -> str:
    """Who said what is wrong; empty: several settings together are."""
    if not location:
        return ""
    name, *rest = map(str, location)
    if name not in SECTIONS:
        return sources.get(name, "")
    if not rest:
        # of the table as a whole: whoever gave some of it
        return ", ".join(s for n, s in sources.items() if name in (n, _section_of(n)))
    return sources.get(f"{name}_{rest[0]}") or f"{file}: {path_of(location, given)}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name in SECTIONS and not isinstance(value, dict):
            raise ConfigError(f"{path}: {name}: expected a table, [{name}] (got {shown(value)})")
        given[name] = _beside(path, name, value)
    return given


def _beside(file: Path, name: str, value: Any) -> Any:
    """Paths in a file are relative to that file's folder."""
    folder = file.absolute().parent
    if name in SECTIONS:
        return beside(SECTIONS[name], value, folder)
    if name in ("run_dir", "log_file") and isinstance(value, str):
        return folder / value
    if name != "model_repository":
        return value
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        return value
    return tuple(folder / Path(path).expanduser() for path in paths)


def _source(
    name: str,
    flags: Mapping[str, Any],
    env: Mapping[str, Any],
    platforms: Mapping[str, PlatformSetting],
    file: Path,
) -> str:
    if name in flags:
        return flag_of(name)
    if name in env:
        return f"{ENV_PREFIX}{name.upper()}"
    if name in platforms:
        return platforms[name].variable
    return f"{file}: {name}"
