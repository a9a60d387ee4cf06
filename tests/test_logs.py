"""Log lines as a person and as a collector reads them."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import msgspec
import pytest

from penstock.logs import LogFormat, LogSettings, configure_logging

LOGGER = logging.getLogger("penstock.gateway")


def test_a_line_for_a_person() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    LOGGER.info("served %s", "digits", extra={"tenant": "a", "rows": 3})

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    penstock\.gateway: "
        r"served digits tenant=a rows=3\n",
        stream.getvalue(),
    )


def test_a_line_break_in_a_text_does_not_forge_a_line() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    LOGGER.warning("no model %s", "x\r\n2026 INFO forged", extra={"id": "a\nb"})

    assert stream.getvalue().count("\n") == 1
    assert "x\\r\\n2026 INFO forged id=a\\nb\n" in stream.getvalue()


def test_a_json_line() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="json"), stream)
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
    configure_logging(LogSettings(format="json"), stream)
    LOGGER.info("\udcff", extra={"path": io.BytesIO})

    assert json.loads(stream.getvalue())["msg"] == "\udcff"


@pytest.mark.parametrize("fmt", ["default", "json"])
def test_a_traceback_is_kept(fmt: str) -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="json" if fmt == "json" else "default"), stream)
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
    configure_logging(LogSettings(verbose=verbose), io.StringIO())

    assert logging.getLevelName(LOGGER.getEffectiveLevel()) == own
    assert logging.getLevelName(logging.getLogger("uvicorn").getEffectiveLevel()) == other


def test_the_last_configuration_counts_alone() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(LogSettings(), first)
    configure_logging(LogSettings(), second)
    LOGGER.info("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (LogSettings(), "IWE"),
        (LogSettings(info=False), "WE"),
        (LogSettings(warning=False), "IE"),
        (LogSettings(error=False), "IW"),
        (LogSettings(info=False, warning=False, error=False), ""),
        (LogSettings(info=False, warning=False, error=False, verbose=1), "D"),
    ],
)
def test_levels_are_switched_one_by_one(settings: LogSettings, shown: str) -> None:
    stream = io.StringIO()
    configure_logging(msgspec.structs.replace(settings, format="ISO8601"), stream)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        LOGGER.log(level, "x")
    assert "".join(line.split()[1] for line in stream.getvalue().splitlines()) == shown


def test_levels_that_are_off_make_no_record() -> None:
    configure_logging(LogSettings(info=False), io.StringIO())
    assert not LOGGER.isEnabledFor(logging.INFO)
    assert LOGGER.isEnabledFor(logging.WARNING)


def test_a_line_as_triton_has_it() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="ISO8601"), stream)
    LOGGER.warning("a\nb", extra={"rows": 3})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ W \d+ test_logs\.py:\d+\] a\\nb rows=3\n",
        stream.getvalue(),
    )


@pytest.mark.parametrize("fmt", ["default", "ISO8601", "json"])
def test_a_worker_names_itself_and_shows_its_models_loggers(fmt: LogFormat) -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format=fmt), stream, "digits/1#0")
    logging.getLogger("my_model").info("hello")
    assert "digits/1#0" in stream.getvalue()
    assert "hello" in stream.getvalue()


def test_lines_are_appended_to_a_file(tmp_path: Path) -> None:
    file, stream = tmp_path / "log", io.StringIO()
    file.write_text("before\n")
    configure_logging(LogSettings(file=str(file)), stream)
    LOGGER.info("after")
    configure_logging(LogSettings(), stream)
    assert file.read_text().startswith("before\n")
    assert file.read_text().endswith("after\n")
    assert stream.getvalue() == ""


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        configure_logging(LogSettings(file=str(tmp_path / "no" / "log")), io.StringIO())
