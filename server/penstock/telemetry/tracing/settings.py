"""What is traced now: the server's setting, and each model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.errors import InvalidRequest, Unsupported
from penstock.trace_config import (
    MAX_INT32,
    MAX_UINT32,
    OFF,
    TraceConfig,
    parse_levels,
    parse_number,
)

FILE_IS_FIXED: Final = "trace file location can not be updated through network protocol"
_INVALID: Final = "Attempting to set invalid trace setting :"

Changes = Mapping[str, Sequence[str] | None]
"""The extension's name → its values; None goes back to the server's setting, or that of the start."""


class TraceSetting(msgspec.Struct, frozen=True):
    """What holds for one model, or for all that have no setting of their own."""

    level: tuple[str, ...]
    """Empty: off."""
    rate: int
    count: int
    log_frequency: int

    def to_texts(self) -> dict[str, list[str]]:
        """By the extension's names."""
        return {
            "trace_level": list(self.level) or [OFF],
            "trace_rate": [str(self.rate)],
            "trace_count": [str(self.count)],
            "log_frequency": [str(self.log_frequency)],
        }


class TraceSettings:
    """The server's setting and the models' overrides. Model "" is the server."""

    def __init__(self, config: TraceConfig) -> None:
        self._config = config
        self._start = TraceSetting(config.level, config.rate, config.count, config.log_frequency)
        self._changed: dict[str, dict[str, Any]] = {}

    def of(self, model: str) -> TraceSetting:
        """What holds for it."""
        return self._resolved(model, self._changed)

    @property
    def models(self) -> Sequence[str]:
        """Those with a setting of their own."""
        return [model for model in self._changed if model]

    def update(self, model: str, changes: Changes) -> None:
        """Change some values. Raises InvalidRequest or Unsupported; then nothing is changed."""
        values = dict(self._changed.get(model, {}))
        for name, texts in changes.items():
            field = _field(name)
            if texts is None:
                values.pop(field, None)
            else:
                values[field] = _value(name, texts)
        changed = {**self._changed, model: values}
        if not values:
            del changed[model]
        for each in {"", model, *changed}:
            self._check(self._resolved(each, changed))
        self._changed = changed

    def _resolved(self, model: str, changed: Mapping[str, dict[str, Any]]) -> TraceSetting:
        values = {**changed.get("", {}), **changed.get(model, {})}
        return msgspec.structs.replace(self._start, **values)

    def _check(self, setting: TraceSetting) -> None:
        if not setting.level:
            return
        if setting.rate == 0:
            raise InvalidRequest(f"{_INVALID}sample rate must be non-zero")
        if self._config.mode == "triton" and not self._config.file:
            raise InvalidRequest(
                f"{_INVALID}trace file name is not given;"
                " it is set at the start: --trace-config triton,file=FILE"
            )


_FIELDS: Final = {
    "trace_level": "level",
    "trace_rate": "rate",
    "trace_count": "count",
    "log_frequency": "log_frequency",
}


def _field(name: str) -> str:
    if name == "trace_file":
        raise Unsupported(FILE_IS_FIXED)
    if name not in _FIELDS:
        known = ", ".join(_FIELDS)
        raise InvalidRequest(f"unknown trace setting '{name[:80]}', expected one of {known}")
    return _FIELDS[name]


def _value(name: str, texts: Sequence[str]) -> object:
    try:
        if name == "trace_level":
            return parse_levels(texts)
        if len(texts) != 1:
            raise ValueError(f"expect only 1 value for '{name}'")
        if name != "trace_count":
            return parse_number(name, texts[0], 0, MAX_UINT32)
        count = parse_number(name, texts[0], -MAX_INT32, MAX_INT32)
        if count < -1:
            raise ValueError(f"Unable to parse '{name}'. Expecting value >= -1, got: {count}")
        return count
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
