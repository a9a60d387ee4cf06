"""`--trace-config`: Triton's `[MODE,]NAME=VALUE` in typed form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

OFF: Final = "OFF"
TRACE_LEVELS: Final = ("TIMESTAMPS", "TENSORS")
MODES: Final = ("triton", "opentelemetry")
MAX_UINT32: Final = 2**32 - 1
MAX_INT32: Final = 2**31 - 1
DEFAULT_URL: Final = "http://localhost:4318/v1/traces"


class TraceConfig(msgspec.Struct, frozen=True):
    """What is traced, and where traces go."""

    mode: str = "triton"
    """triton: JSON files. opentelemetry: spans, sent to a collector."""
    level: tuple[str, ...] = ()
    """Of TRACE_LEVELS, in that order; none: off."""
    rate: int = 1000
    """One of so many requests is traced."""
    count: int = -1
    """So many traces are made; -1: any number."""
    log_frequency: int = 0
    """So many traces go into one numbered file; 0: all go into one file without number."""
    file: str = ""
    url: str = ""
    """OTLP over HTTP; empty: what OpenTelemetry's own variables say, else `DEFAULT_URL`."""
    resource: tuple[tuple[str, str], ...] = ()
    """Attributes of the resource that spans are of."""
    bsp_schedule_delay: int = 5000
    """Milliseconds until spans are sent, at the latest."""
    bsp_max_queue_size: int = 2048
    bsp_max_export_batch_size: int = 512


def parse_trace_config(texts: Iterable[str]) -> TraceConfig:
    """All of the flag's values together; the last one of a name counts, but levels and resource attributes add up.

    Raises ValueError that names the part that is wrong.
    """
    config = TraceConfig()
    for text in texts:
        mode, pairs = _pairs(text)
        for name, value in pairs:
            parse = _SETTINGS[mode].get(name)
            if parse is None:
                known = ", ".join(_SETTINGS[mode])
                raise ValueError(f"{text}: there is no {name}, expected one of {known}")
            try:
                changes = parse(config, value)
            except ValueError as error:
                raise ValueError(f"{text}: {error}") from None
            config = msgspec.structs.replace(config, **changes)
    if config.level and config.mode == "triton" and not config.file:
        raise ValueError(f"level={config.level[0]} needs triton,file=FILE")
    return config


def with_absolute_file(text: str) -> str:
    """The flag's value, its file's path absolute: other processes read it in other folders."""
    match = re.fullmatch(r"triton,(?:(.*),)?file=([^,]+)(,.*)?", text)
    if match is None:
        return text
    before, file, after = match.groups()
    path = Path(file).expanduser().absolute()
    return f"triton,{before + ',' if before else ''}file={path}{after or ''}"


def parse_levels(names: Iterable[str]) -> tuple[str, ...]:
    """The levels; none for OFF. Raises ValueError on one that is not known, or OFF among others."""
    given = list(names)
    for name in given:
        if name not in (OFF, *TRACE_LEVELS):
            expected = ", ".join((OFF, *TRACE_LEVELS))
            raise ValueError(
                f"invalid value for trace level option: {name[:80]}, expected {expected}"
            )
    if OFF in given and set(given) != {OFF}:
        raise ValueError("Expect only one trace level 'OFF' is specified")
    return tuple(level for level in TRACE_LEVELS if level in given)


def parse_number(name: str, text: str, low: int, high: int) -> int:
    """The number, within its bounds. Raises ValueError, in Triton's words."""
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
        raise ValueError(f"Unable to parse '{name}', got: {text[:80]}")
    number = int(text)
    if not low <= number <= high:
        raise ValueError(
            f"Unable to parse '{name}', value is out of range [ {low}, {high} ], got: {text}"
        )
    return number


def _pairs(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The mode, empty for settings of both, and each name with its value."""
    mode, comma, rest = text.partition(",")
    if "=" in mode or not comma:
        mode, rest = "", text
    if mode not in _SETTINGS:
        raise ValueError(f"{text}: invalid value for trace mode option: {mode}")
    # a comma within a value is one that no known name follows
    names = "|".join(map(re.escape, _SETTINGS[mode]))
    pairs = [part.partition("=") for part in re.split(rf",(?=(?:{names})=)", rest)]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(f"{text}: expected [MODE,]NAME=VALUE, such as rate=100")
    return mode, [(name, value) for name, _, value in pairs]


Changes = Mapping[str, Any]
Parse = Callable[[TraceConfig, str], Changes]


def _mode(_: TraceConfig, value: str) -> Changes:
    if value not in MODES:
        raise ValueError(
            f"invalid value for trace mode option: {value}, expected {' or '.join(MODES)}"
        )
    return {"mode": value}


def _level(config: TraceConfig, value: str) -> Changes:
    levels = parse_levels([value])
    return {"level": parse_levels({*config.level, *levels}) if levels else ()}


def _rate(_: TraceConfig, value: str) -> Changes:
    return {"rate": parse_number("rate", value, 1, MAX_UINT32)}


def _count(_: TraceConfig, value: str) -> Changes:
    return {"count": parse_number("count", value, -1, MAX_INT32)}


def _log_frequency(_: TraceConfig, value: str) -> Changes:
    return {"log_frequency": parse_number("log-frequency", value, 0, MAX_UINT32)}


def _file(_: TraceConfig, value: str) -> Changes:
    return {"file": value}


def _url(_: TraceConfig, value: str) -> Changes:
    if not re.match(r"https?://", value):
        raise ValueError("expected a URL, http://… or https://…")
    return {"url": value}


def _resource(config: TraceConfig, value: str) -> Changes:
    name, equals, attribute = value.partition("=")
    if not name or not equals:
        raise ValueError("expected resource=NAME=VALUE")
    return {"resource": (*config.resource, (name, attribute))}


def _positive(name: str) -> Parse:
    return lambda _, value: {name: parse_number(name, value, 1, MAX_INT32)}


_SETTINGS: Final[Mapping[str, Mapping[str, Parse]]] = {
    "": {"mode": _mode, "level": _level, "rate": _rate, "count": _count},
    "triton": {"file": _file, "log-frequency": _log_frequency},
    "opentelemetry": {
        "url": _url,
        "resource": _resource,
        **{
            name: _positive(name)
            for name in ("bsp_schedule_delay", "bsp_max_queue_size", "bsp_max_export_batch_size")
        },
    },
}
"""Mode → its settings; "" has those of all modes."""
