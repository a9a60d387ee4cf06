"""How log lines look: one line for a person, or one JSON object for a collector.

Only composition roots call `configure_logging`; all else logs by `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

LogFormat = Literal["default", "json"]

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


def configure_logging(verbose: int, fmt: LogFormat, stream: TextIO) -> None:
    """Send all log lines to `stream`, in place of what was configured before.

    `verbose`: 0 shows our own INFO and others' WARNING, 1 DEBUG and INFO, 2 and more everything.
    """
    own_level, other_level = _LEVELS[min(max(verbose, 0), len(_LEVELS) - 1)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if fmt == "json" else LineFormatter())
    logging.basicConfig(handlers=[handler], level=other_level, force=True)
    logging.getLogger("penstock").setLevel(own_level)


class LineFormatter(logging.Formatter):
    """`2026-11-24T01:02:18.405Z INFO    penstock.gateway: message key=value`.

    A traceback follows on its own lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        text = f"{record.getMessage()}{extras}"
        # A line break in a client's text must not look like a line of ours.
        text = text.replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_timestamp(record)} {record.levelname:<7} {record.name}: {text}"
        trace = _traceback(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One object a line: `ts`, `level`, `msg`, `logger`, what `extra` gave, `exception` if any."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname,
            "msg": record.getMessage(),
            "logger": record.name,
        }
        trace = _traceback(self, record)
        if trace:
            fields["exception"] = trace
        return json.dumps({**_extras(record), **fields}, default=str)


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
    return "\n".join(parts)
