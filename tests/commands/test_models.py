"""`penstock models` against a small server that speaks the protocol."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from penstock.cli import main

FULL: Mapping[str, Any] = {
    "model": "busy",
    "version": "3",
    "policy": {
        "max_rows": 64,
        "rows_cap": 16,
        "delay_us": 250.0,
        "max_delay_us": 2000,
        "preferred_rows": [8, 16],
        "max_queue_requests": 10_000,
        "max_queue_bytes": 1 << 30,
        "max_queue_us": 5_000_000,
        "levels": [
            {
                "level": "default",
                "timeout_us": 50_000,
                "timeout_action": "REJECT",
                "allow_timeout_override": False,
                "max_queue_requests": 100,
            },
            {
                "level": "2",
                "timeout_us": 0,
                "timeout_action": "DELAY",
                "allow_timeout_override": True,
                "max_queue_requests": 0,
            },
        ],
    },
    "slo": {
        "p99_ms": 50,
        "measured_p99_ms": 41.26,
        "rows_cap": 16,
        "delay_us": 250.0,
        "headroom": 0.1748,
        "reason": "grew: there was headroom",
        "history": [
            {
                "at_s_ago": 2.04,
                "rows_cap": 12,
                "delay_us": 100,
                "measured_p99_ms": 63.5,
                "reason": "shrank: [late]",
            }
        ],
    },
    "service_curve": [
        {"rows": 1, "median_us": 2000.0, "upper_us": 2500.0, "samples": 40},
        {"rows": 16, "median_us": 8000.0, "upper_us": 9100.5, "samples": 1234},
    ],
    "queue": {
        "requests": 21,
        "rows": 42,
        "bytes": 2048,
        "drain_us": 123_456,
        "levels": [
            {
                "level": 1,
                "tenants": [
                    {
                        "tenant": "se[a]rch",
                        "weight": 2.5,
                        "requests": 20,
                        "rows": 40,
                        "oldest_us": 700,
                    }
                ],
            },
            {
                "level": 2,
                "late": True,
                "tenants": [
                    {"tenant": "default", "weight": 1, "requests": 1, "rows": 2, "oldest_us": 9.5}
                ],
            },
        ],
    },
    "rate_limiter": {
        "resources": [
            {"name": "memory", "device": 0, "held": 3, "count": 4},
            {"name": "licence", "device": None, "held": 0, "count": 1},
        ]
    },
    "response_cache": {
        "budget_bytes": 1 << 20,
        "used_bytes": 6000,
        "model_bytes": 5000,
        "entries": 12,
        "hits": 1234,
        "misses": 56,
        "coalesced": 7,
        "evictions": 0,
        "too_large": 3,
        "runs": 2,
        "waiting": 5,
    },
    "refused": {"queue_full": 1500, "too_late": 7, "expired": 0},
    "instances": [
        {
            "name": "busy_0",
            "device": "cuda:1",
            "state": "running",
            "running_rows": [16, 8],
            "busy_us": 3300,
            "predicted_us": 8000,
        },
        {"name": "busy_1", "state": "idle"},
    ],
    "quarantine": [{"digest": "c0ffee", "reason": "killed two workers", "seconds_left": 599.94}],
}
BARE = {"model": "bare", "version": "1"}
ENSEMBLE = {
    "model": "pipeline",
    "version": "1",
    "problem": "step 1 ('b[b]') is gone",
    "under_way": {"requests": 3, "bytes": 2048, "max_requests": 10_000, "max_bytes": 1 << 30},
    "steps": [
        {"step": 0, "model": "a", "version": "2", "ready": True},
        {"step": 1, "model": "b[b]", "version": "", "ready": False},
    ],
}
EXPLAINED = {
    "pipeline": ENSEMBLE,
    "busy": FULL,
    "bare": BARE,
    "strange": {"model": "strange", "queue": "none of our kind"},
}
INDEX = [
    {"name": "bare", "version": "1", "state": "READY", "reason": "", "devices": ""},
    {
        "name": "brok[e]n",
        "version": "",
        "state": "UNAVAILABLE",
        "reason": "no model file",
        "devices": "",
    },
    {"name": "busy", "version": "3", "state": "READY", "reason": "", "devices": "cpu, cuda:1"},
]


REGISTRY: dict[str, Any] = {
    "uri": "https://mlflow",
    "agent": True,
    "reachable": False,
    "last_contact": 1_700_000_000.5,
    "problem": "the registry can't be asked: it is away",
    "models": [
        {
            "name": "dig[i]ts",
            "registered": "digits",
            "refs": ["dig[i]ts=models:/digits@champion,challenger"],
            "versions": [{"version": 3, "wanted": True, "digest": "sha256:0", "run_id": "r"}],
            "default": 3,
            "aliases": {"champion": 3, "challenger": 4},
            "problem": "version 4: it is away",
            "fetching": [4],
        },
        {"name": "new", "default": None},
    ],
}


class Handler(BaseHTTPRequestHandler):
    """Explains EXPLAINED, lists INDEX, and has REGISTRY."""

    def do_GET(self) -> None:
        if self.path == "/v2/registry":
            self._send(200, REGISTRY)
            return
        parts = self.path.split("/")
        name, action = parts[3], parts[-1]
        found = EXPLAINED.get(name) if action == "explain" else None
        if found is not None and "versions" in parts:
            found = {**found, "version": parts[5]}
        error = {"error": f"Request for unknown model: '{name}' is not found"}
        self._send(404 if found is None else 200, error if found is None else found)

    def do_POST(self) -> None:
        self._send(200 if self.path == "/v2/repository/index" else 404, INDEX)

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines of a command that succeeds, with single spaces."""
    assert main(["models", *arguments]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that fails."""
    assert main(["models", *arguments]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    return captured.err


def test_an_ensemble(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "explain", "pipeline", "--url", url)
    for line in (
        "pipeline 1",
        "step 1 ('b[b]') is gone",
        "0 a 2 ready",
        "1 b[b] - not ready",
        "requests 3 of 10,000",
        "bytes 2,048 of 1,073,741,824",
    ):
        assert line in lines


def test_all_parts(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "explain", "busy", "--url", url)
    for line in (
        "busy 3",
        "rows of a batch 16 of 64",
        "preferred rows 8, 16",
        "waits for more 0.25 ms of 2 ms",
        "requests in the queue 10,000",
        "bytes in the queue 1,073,741,824",
        "time in the queue 5,000 ms",
        "p99 41.3 ms of 50 ms",
        "plans with 17% of it",
        "why grew: there was headroom",
        "2.0 s 12 0.1 ms 63.5 ms shrank: [late]",
        "1 2 ms 2.5 ms 500 40",
        "16 8 ms 9.1 ms 2,000 1,234",
        "requests 21",
        "time to empty 123 ms",
        "1 se[a]rch 2.5 20 40 0.7 ms",
        "2 late default 1 1 2 0.0095 ms",
        "default 100 50 ms REJECT no",
        "2 - - DELAY yes",
        "memory 0 3 of 4",
        "licence all 0 of 1",
        "answers 12",
        "bytes 5,000",
        "bytes of all models 6,000 of 1,048,576",
        "hits 1,234",
        "of these, waited for the same 7",
        "too large 3",
        "wait for these 5",
        "busy_0 cuda:1 running 16 + 8 3.3 ms 8 ms",
        "busy_1 - idle - - -",
        "queue full 1,500",
        "too late 7",
        "expired 0",
        "c0ffee killed two workers 599.9 s",
    ):
        assert line in lines, (line, lines)


def test_what_is_not_told_is_not_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "explain", "bare", "--url", url) == ["bare 1"]


@pytest.mark.parametrize("part", [part for part in FULL if part not in BARE])
def test_each_part_may_be_missing(
    url: str, part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {name: value for name, value in FULL.items() if name != part}
    monkeypatch.setitem(EXPLAINED, "busy", others)
    without = shown(capsys, "explain", "busy", "--url", url)
    monkeypatch.setitem(EXPLAINED, "busy", {**BARE, part: FULL[part]})
    alone = shown(capsys, "explain", "busy", "--url", url)
    assert len(without) > len(alone) > 1


def test_a_bound_that_is_none(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = {"max_queue_us": 0, "rows_cap": 3, "max_delay_us": 500}
    monkeypatch.setitem(EXPLAINED, "busy", {**BARE, "policy": policy})
    lines = shown(capsys, "explain", "busy", "--url", url)
    assert lines == ["bare 1", "", "policy", "rows of a batch 3", "waits for more at most 0.5 ms"]


def test_a_version(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "explain", "bare", "--version", "7", "--url", url)
    assert lines == ["bare 7"]


def test_json_is_what_the_server_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "explain", "busy", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out) == FULL
    assert main(["models", "explain", "strange", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out) == EXPLAINED["strange"]


def test_an_unknown_model(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, "explain", "nobody", "--url", url)
    assert error == "penstock: unknown model 'nobody'; ready are: bare, busy\n"


def test_a_model_that_is_not_ready(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, "explain", "brok[e]n", "--url", url)
    assert error == "penstock: model 'brok[e]n' is not ready: no model file\n"


def test_an_answer_that_is_not_understood(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, "explain", "strange", "--url", url)
    assert f"{url} explains in a way that is not known here: Expected `object" in error


@pytest.mark.parametrize("arguments", [("explain", "busy"), ("list",)])
def test_nobody_is_there(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"no server answers at {url}" in failed(capsys, *arguments, "--url", url)


def test_list(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "list", "--url", url)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["bare", "1", "READY", "", ""],
        ["brok[e]n", "", "UNAVAILABLE", "", "no model file"],
        ["busy", "3", "READY", "cpu, cuda:1", ""],
    ]


def test_list_as_json(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out) == INDEX


@pytest.mark.parametrize("arguments", [["explain"], ["frobnicate"], ["list", "--wrong"]])
def test_used_wrongly(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("penstock: ")
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", *arguments])
    captured = capsys.readouterr()
    assert "explain" in captured.out + captured.err
    assert "list" in captured.out + captured.err


def test_what_comes_from_a_registry_is_shown(
    capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(capsys, "registry", "--url", url)
    assert lines[0] == "https://mlflow does not answer (last at 2023-11-14 22:13:20 UTC)"
    assert lines[1] == "the registry can't be asked: it is away"
    (row,) = [line for line in lines if "models:/digits" in line]
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    ref, aliases = "dig[i]ts=models:/digits@champion,challenger", "champion = 3, challenger = 4"
    assert cells == ["dig[i]ts", ref, "3, 4 (on its way)", "3", aliases]
    assert lines[-1] == "dig[i]ts: version 4: it is away"
    monkeypatch.setitem(REGISTRY, "reachable", True)
    assert shown(capsys, "registry", "--url", url)[0] == "https://mlflow answers"
    monkeypatch.setitem(REGISTRY, "agent", False)
    assert "there is no registry agent" in shown(capsys, "registry", "--url", url)[0]
    assert main(["models", "registry", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["default"] == 3
