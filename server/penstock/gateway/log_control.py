"""The logging extension: shows and changes what the gateway and its workers log. The same for both protocols."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from google.protobuf.message import Message

from penstock.errors import InvalidRequest, Unsupported
from penstock.logs import LOG_FORMATS, LogSettings, configure_logging
from penstock.protobuf import message_class

MAX_VERBOSE: Final = 2**32 - 1
FILE_IS_FIXED: Final = "log file location can not be updated through network protocol"

_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "log_file": ("file", "string_param"),
    "log_info": ("info", "bool_param"),
    "log_warning": ("warning", "bool_param"),
    "log_error": ("error", "bool_param"),
    "log_verbose_level": ("verbose", "uint32_param"),
    "log_format": ("format", "string_param"),
}
"""The extension's name → ours, and where gRPC has its value."""

_EXPECTED: Final = {"bool_param": "boolean", "uint32_param": "int32", "string_param": "string"}
"""As Triton's texts say it over gRPC, and …"""
_EXPECTED_JSON: Final = {
    "bool_param": "attempt to access JSON non-boolean as boolean",
    "uint32_param": "attempt to access JSON non-unsigned-integer as unsigned-integer",
    "string_param": "attempt to access JSON non-string as string",
}
"""… over HTTP."""


class LogControl:
    """One a gateway. `on_change` is told of the settings, for the workers."""

    def __init__(self, settings: LogSettings, on_change: Callable[[LogSettings], None]) -> None:
        self._settings = settings
        self._on_change = on_change

    def to_json(self) -> dict[str, Any]:
        """The settings as HTTP shows them."""
        return {name: getattr(self._settings, ours) for name, (ours, _) in _FIELDS.items()}

    def update(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change what the body of a POST names; null changes nothing. Returns all settings.

        Raises InvalidRequest, Unsupported. Then nothing is changed.
        """
        given: dict[str, Any] = {}
        for name, value in changes.items():
            where = _where(name)
            if value is None:
                continue
            if not _is(where, value):
                raise InvalidRequest(f"{_EXPECTED_JSON[where]}: '{name}' is {str(value)[:80]!r}")
            given[name] = value
        self._apply(given, format_is="--log_format")
        return self.to_json()

    def answer(self, request: Any) -> Message:
        """Change what a LogSettingsRequest names, and tell all settings. Raises as `update` does."""
        given: dict[str, Any] = {}
        for name, value in request.settings.items():
            where = _where(name)
            if value.WhichOneof("parameter_choice") != where:
                raise InvalidRequest(f"expect {_EXPECTED[where]} for '{name}'")
            given[name] = getattr(value, where)
        self._apply(given, format_is="log_format")
        response: Any = message_class("inference.LogSettingsResponse")()
        for name, value in self.to_json().items():
            setattr(response.settings[name], _FIELDS[name][1], value)
        return response  # type: ignore[no-any-return]

    def _apply(self, given: Mapping[str, Any], *, format_is: str) -> None:
        log_format = given.get("log_format", "default")
        if log_format not in LOG_FORMATS:
            raise InvalidRequest(
                f"invalid argument for {format_is}, got: {log_format[:80]};"
                f" expected one of {', '.join(LOG_FORMATS)}"
            )
        ours = {_FIELDS[name][0]: value for name, value in given.items()}
        settings = msgspec.structs.replace(self._settings, **ours)
        if settings == self._settings:
            return
        try:
            configure_logging(settings, sys.stderr)
        except OSError as error:
            raise InvalidRequest(
                f"the log file {settings.file} can't be written: {error.strerror}"
            ) from error
        self._settings = settings
        self._on_change(settings)


def _where(name: str) -> str:
    """Where gRPC has the setting's value. Raises InvalidRequest for one that is not known."""
    if name == "log_file":
        raise Unsupported(FILE_IS_FIXED)
    field = _FIELDS.get(name)
    if field is None:
        raise InvalidRequest(
            f"unknown log setting '{name[:80]}', expected one of {', '.join(_FIELDS)}"
        )
    return field[1]


def _is(where: str, value: object) -> bool:
    match where:
        case "bool_param":
            return isinstance(value, bool)
        case "uint32_param":
            return type(value) is int and 0 <= value <= MAX_VERBOSE
    return isinstance(value, str)
