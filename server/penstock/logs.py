"""Which log lines there are, where they go, and how they look: for a person, as Triton's, or as JSON for a collector.

Only composition roots, and what changes the settings at run time, call `configure_logging`; all else logs by
`logging.getLogger(__name__)`.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Any, Final, Literal, TextIO, get_args

import msgspec

from penstock.redaction import redacted

LogFormat = Literal["default", "ISO8601", "json"]
LOG_FORMATS: Final[tuple[str, ...]] = get_args(LogFormat)

_STANDARD_ATTRIBUTES: Final = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
)
"""What every record has; all else came in by `extra`."""

_LEVELS: Final = (
    (logging.INFO, logging.WARNING),
    (logging.DEBUG, logging.INFO),
    (logging.DEBUG, logging.DEBUG),
)
"""By verbosity: our own level, and that of all other libraries."""


class LogSettings(msgspec.Struct, frozen=True):
    """What the logging extension can show and change, and what workers are told."""

    file: str = ""
    """Where lines go, appended; empty: to standard error."""
    info: bool = True
    warning: bool = True
    error: bool = True
    verbose: int = 0
    """0 shows our own INFO and others' WARNING, 1 DEBUG and INFO, 2 and more everything."""
    format: LogFormat = "default"


def configure_logging(settings: LogSettings, stream: TextIO, worker: str = "") -> None:
    """Send all log lines to the settings' file, else to `stream`, in place of what was configured before.

    `worker`: its name; it is in each line, and a model's own loggers show their INFO. Raises OSError when the file
    can't be written.
    """
    own_level, other_level = _LEVELS[min(max(settings.verbose, 0), len(_LEVELS) - 1)]
    if worker:
        other_level = min(other_level, logging.INFO)
    shown = _Shown(settings)
    # of the file there may be one more writer each worker: lines are appended whole
    handler = WatchedFileHandler(settings.file) if settings.file else logging.StreamHandler(stream)
    handler.setFormatter(_FORMATTERS[settings.format](worker))
    handler.addFilter(shown)
    logging.basicConfig(handlers=[handler], level=max(other_level, shown.lowest), force=True)
    logging.getLogger("penstock").setLevel(max(own_level, shown.lowest))


class _Shown(logging.Filter):
    """Lets through what is switched on. Below INFO the loggers' levels decide."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._error, self._warning, self._info = settings.error, settings.warning, settings.info
        switches = (
            (settings.verbose > 0, logging.DEBUG),
            (settings.info, logging.INFO),
            (settings.warning, logging.WARNING),
            (settings.error, logging.ERROR),
        )
        self.lowest: Final = next((level for on, level in switches if on), logging.CRITICAL + 1)
        """No record below it is worth making."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return self._error
        if record.levelno >= logging.WARNING:
            return self._warning
        return self._info or record.levelno < logging.INFO


class LineFormatter(logging.Formatter):
    """`2026-11-24T01:02:18.405Z INFO    penstock.gateway: message key=value`; a worker names itself before the logger.

    A traceback follows on its own lines.
    """

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self._prefix = f"{worker} " if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        origin = f"{self._prefix}{record.name}"
        line = f"{_timestamp(record)} {record.levelname:<7} {origin}: {_one_line(record)}"
        trace = _traceback(self, record)
        return f"{line}\n{trace}" if trace else line


class Iso8601Formatter(LineFormatter):
    """`2026-11-24T01:02:18Z I 4711 gateway.py:83] message key=value`, as Triton's `--log-format ISO8601` has it."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        head = f"{moment:%Y-%m-%dT%H:%M:%SZ} {record.levelname[0]} {record.process}"
        line = f"{head} {record.filename}:{record.lineno}] {self._prefix}{_one_line(record)}"
        trace = _traceback(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One object a line: `ts`, `level`, `msg`, `logger`, what `extra` gave, `worker` in one, `exception` if any."""

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname,
            "msg": redacted(record.getMessage()),
            "logger": record.name,
        }
        if self._worker:
            fields["worker"] = self._worker
        trace = _traceback(self, record)
        if trace:
            fields["exception"] = trace
        extras = {name: _harmless(value) for name, value in _extras(record).items()}
        return json.dumps({**extras, **fields}, default=lambda value: redacted(str(value)))


# C0, C1, line separators, and what turns the direction of writing around
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_CONTROLS_BUT_LINES: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
_LIKE_OURS: Final = re.compile(r"^(?=\d{4}-\d\d-\d\dT)", re.MULTILINE)

_FORMATTERS: Final = {
    "default": LineFormatter,
    "ISO8601": Iso8601Formatter,
    "json": JsonFormatter,
}


def _one_line(record: logging.LogRecord) -> str:
    extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
    return without_controls(redacted(f"{record.getMessage()}{extras}"))


def without_controls(text: str) -> str:
    """A line break in a client's text must not look like a line of ours, and nothing of it move a terminal's cursor."""
    return _CONTROLS.sub(_escaped, text)


def _escaped(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD_ATTRIBUTES}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    # the error's own text is in there
    text = _CONTROLS_BUT_LINES.sub(_escaped, redacted("\n".join(parts)))
    return _LIKE_OURS.sub("  ", text)


def _harmless(value: object) -> object:
    return redacted(value) if isinstance(value, str) else value
