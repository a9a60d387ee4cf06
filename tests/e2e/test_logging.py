"""The logging extension: what tritonclient reads and sets, and what the server and its workers then log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from grpc_calls import failure, pb
from served import Served, json_request
from served_models import XY, write_model
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("logging")]

DEFAULTS = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
LEVELS = ("verbose", "info", "warning", "error")


@pytest.fixture
def talking(serve: Callable[..., Served], front: str, tmp_path: Path) -> Callable[..., Served]:
    """`talking(*flags)` serves a model that logs a line of each level for each request."""
    write_model(tmp_path / "models" / "talking", "talking", f"max_batch_size: 4\n{XY}")

    def start(*flags: str) -> Served:
        return serve(tmp_path / "models", front, *flags).wait_ready()

    return start


def said(server: Served, mark: str, where: Path | None = None) -> set[str]:
    """The levels at which the model's line of a request with that id was logged."""

    def text() -> str:
        return server.log if where is None else where.read_text()

    assert server.infer("talking", json_request(1.0, id=mark)).status == 200
    # answered, and so all is written that will be: the worker logs before it answers
    return {level for level in LEVELS if f"{level} {mark}" in text()}


def as_plain(settings: Any) -> dict[str, Any]:
    """gRPC's answer as a dictionary like HTTP's."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in settings.settings.items()
    }


def test_both_protocols_show_the_defaults(server: Served, http: Any, rpc: Any) -> None:
    assert http.get_log_settings() == DEFAULTS
    assert as_plain(rpc.get_log_settings()) == DEFAULTS
    assert "logging" in server.get("/v2").json["extensions"]


def test_levels_change_at_run_time_for_workers_that_run(talking: Callable[..., Served]) -> None:
    server = talking()
    assert said(server, "m0") == {"info", "warning", "error"}
    with tritonclient.http.InferenceServerClient(server.http) as http:
        changed = http.update_log_settings({"log_info": False, "log_error": False})
        assert changed == {**DEFAULTS, "log_info": False, "log_error": False}
        assert said(server, "m1") == {"warning"}
    with tritonclient.grpc.InferenceServerClient(server.grpc) as rpc:
        changed = rpc.update_log_settings(
            {"log_info": True, "log_warning": False, "log_verbose_level": 1}
        )
        assert as_plain(changed)["log_verbose_level"] == 1
        assert said(server, "m2") == {"verbose", "info"}
        assert as_plain(rpc.get_log_settings())["log_error"] is False


def test_a_worker_that_is_started_later_logs_the_same(talking: Callable[..., Served]) -> None:
    server = talking()
    (pid,) = server.workers("talking")
    with tritonclient.http.InferenceServerClient(server.http) as http:
        http.update_log_settings({"log_info": False})
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.workers("talking") not in ([], [pid]), "no new worker")
        eventually(lambda: http.is_model_ready("talking"), "the model is not ready")
    assert said(server, "m1") == {"warning", "error"}


def test_formats_change_at_run_time(talking: Callable[..., Served]) -> None:
    server = talking()
    with tritonclient.http.InferenceServerClient(server.http) as http:
        http.update_log_settings({"log_format": "ISO8601"})
        said(server, "m1")
        http.update_log_settings({"log_format": "json"})
        said(server, "m2")
    pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ W \d+ \w+\.py:\d+\] talking/1#0 warning m1$"
    assert re.search(pattern, server.log, re.MULTILINE)
    (line,) = [line for line in server.log.splitlines() if "warning m2" in line]
    assert json.loads(line)["worker"] == "talking/1#0"


def test_flags_say_it_at_the_start(talking: Callable[..., Served], tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    server = talking(f"--log-file={file}", "--log-info=false", "--log-format", "ISO8601")
    assert said(server, "m1", file) == {"warning", "error"}
    assert "m1" not in server.log
    shown = server.get("/v2/logging").json
    assert shown == {**DEFAULTS, "log_file": str(file), "log_info": False, "log_format": "ISO8601"}


def test_a_log_file_that_is_moved_away_is_made_anew(
    talking: Callable[..., Served], tmp_path: Path
) -> None:
    file = tmp_path / "server.log"
    server = talking(f"--log-file={file}")
    file.rename(tmp_path / "server.log.1")
    assert said(server, "m1", file) == {"info", "warning", "error"}


def test_a_log_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    command = [sys.executable, "-m", "penstock.cli", "serve", str(tmp_path / "models")]
    flags = [f"--log-file={tmp_path / 'no' / 'such.log'}"]
    ended = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert "--log-file" in ended.stderr
    assert "such.log can't be written: No such file or directory" in ended.stderr


def test_the_file_cannot_be_changed(http: Any, rpc: Any) -> None:
    for client in (http, rpc):
        with pytest.raises(InferenceServerException, match="log file location can not be updated"):
            client.update_log_settings({"log_file": "/tmp/x"})
        assert client.get_log_settings()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"log_info": "x"}, "attempt to access JSON non-boolean as boolean: 'log_info' is 'x'"),
        ({"log_error": 1}, "attempt to access JSON non-boolean as boolean"),
        ({"log_verbose_level": "1"}, "attempt to access JSON non-unsigned-integer as unsigned"),
        ({"log_verbose_level": -1}, "non-unsigned-integer"),
        ({"log_verbose_level": True}, "non-unsigned-integer"),
        ({"log_format": 3}, "attempt to access JSON non-string as string"),
        ({"log_format": "xml"}, "invalid argument for --log_format, got: xml"),
        ({"log_loud": True}, "unknown log setting 'log_loud'"),
        ({"log_info": False, "log_format": "xml"}, "invalid argument"),
        ("[]", "not a JSON object"),
        ("{", "not a JSON object"),
    ],
)
def test_bad_values_over_http_change_nothing(server: Served, body: Any, text: str) -> None:
    answer = server.request("POST", "/v2/logging", body)
    assert (answer.status, text in answer.error) == (400, True), answer.error
    assert server.get("/v2/logging").json == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("log_info", {"string_param": "x"}, "expect boolean for 'log_info'"),
        ("log_warning", {"uint32_param": 1}, "expect boolean for 'log_warning'"),
        ("log_error", {}, "expect boolean for 'log_error'"),
        ("log_verbose_level", {"bool_param": True}, "expect int32 for 'log_verbose_level'"),
        ("log_format", {"bool_param": True}, "expect string for 'log_format'"),
        ("log_format", {"string_param": "xml"}, "invalid argument for log_format, got: xml"),
        ("log_loud", {"bool_param": True}, "unknown log setting 'log_loud'"),
    ],
)
def test_bad_values_over_grpc_change_nothing(
    server: Served, channel: grpc.Channel, name: str, value: dict[str, Any], text: str
) -> None:
    request = pb.LogSettingsRequest()
    request.settings[name].CopyFrom(pb.LogSettingsRequest.SettingValue(**value))
    code, told = failure(channel, "LogSettings", request)
    assert (code, text in told) == ("INVALID_ARGUMENT", True), told
    assert server.get("/v2/logging").json == DEFAULTS


def test_null_and_nothing_change_nothing(server: Served) -> None:
    for body in ({}, "", {"log_info": None}):
        assert server.request("POST", "/v2/logging", body).json == DEFAULTS
