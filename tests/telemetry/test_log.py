"""Log lines as a person and as a collector reads them."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from penstock.telemetry.log import configure_logging

LOGGER = logging.getLogger("penstock.gateway")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Logging is the process's own: leave it to pytest as it was."""
    root, own = logging.getLogger(), logging.getLogger("penstock")
    handlers, levels = root.handlers[:], (root.level, own.level)
    for handler in handlers:
        root.removeHandler(handler)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def test_a_line_for_a_person() -> None:
    stream = io.StringIO()
    configure_logging(0, "default", stream)
    LOGGER.info("served %s", "digits", extra={"tenant": "a", "rows": 3})

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    penstock\.gateway: "
        r"served digits tenant=a rows=3\n",
        stream.getvalue(),
    )


def test_a_line_break_in_a_text_does_not_forge_a_line() -> None:
    stream = io.StringIO()
    configure_logging(0, "default", stream)
    LOGGER.warning("no model %s", "x\r\n2026 INFO forged", extra={"id": "a\nb"})

    assert stream.getvalue().count("\n") == 1
    assert "x\\r\\n2026 INFO forged id=a\\nb\n" in stream.getvalue()


def test_a_json_line() -> None:
    stream = io.StringIO()
    configure_logging(0, "json", stream)
    LOGGER.error("failed\nbadly", extra={"model": "digits", "queue_us": 12, "level": "no"})

    fields = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("ts"))
    assert fields == {
        "level": "ERROR",
        "msg": "failed\nbadly",
        "logger": "penstock.gateway",
        "model": "digits",
        "queue_us": 12,
    }


def test_a_json_line_takes_what_json_does_not_know() -> None:
    stream = io.StringIO()
    configure_logging(0, "json", stream)
    LOGGER.info("\udcff", extra={"path": io.BytesIO})

    assert json.loads(stream.getvalue())["msg"] == "\udcff"


@pytest.mark.parametrize("fmt", ["default", "json"])
def test_a_traceback_is_kept(fmt: str) -> None:
    stream = io.StringIO()
    configure_logging(0, "json" if fmt == "json" else "default", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        LOGGER.exception("oh")

    written = stream.getvalue()
    text = json.loads(written)["exception"] if fmt == "json" else written
    assert text.rstrip().endswith("ValueError: broken")
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("verbose", "own", "other"),
    [
        (0, "INFO", "WARNING"),
        (1, "DEBUG", "INFO"),
        (2, "DEBUG", "DEBUG"),
        (9, "DEBUG", "DEBUG"),
    ],
)
def test_verbosity(verbose: int, own: str, other: str) -> None:
    configure_logging(verbose, "default", io.StringIO())

    assert logging.getLevelName(LOGGER.getEffectiveLevel()) == own
    assert logging.getLevelName(logging.getLogger("uvicorn").getEffectiveLevel()) == other


def test_the_last_configuration_counts_alone() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(0, "default", first)
    configure_logging(0, "default", second)
    LOGGER.info("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
