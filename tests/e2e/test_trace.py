"""The trace extension: what tritonclient reads and sets, and the traces that are then written."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.utils import InferenceServerException

from grpc_calls import failure, infer_request, pb
from puppets import Gate, row
from served import Served, json_request, json_tensor
from served_models import PUPPET, write_model
from streamers import streamer
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("trace")]

DEFAULTS: Final = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
EVERY: Final = ("--trace-config", "rate=1", "--trace-config", "level=TIMESTAMPS")
PARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ONE: Final = np.array([[1.0, 2.5]], np.float32)


@pytest.fixture
def puppet(serve: Callable[..., Served], front: str, tmp_path: Path) -> Callable[..., Served]:
    """`puppet(*flags)` serves the puppet, whose traces go to `tmp_path / "trace.json"`."""
    batched = "max_batch_size: 8\ndynamic_batching { }"
    write_model(tmp_path / "models" / "puppet", "puppet", f"{batched}\n{PUPPET}")
    file = f"--trace-config=triton,file={tmp_path / 'trace.json'}"

    def start(*flags: str) -> Served:
        return serve(tmp_path / "models", front, file, *flags).wait_ready()

    return start


class Traces:
    """Reads a trace file as Triton's trace_summary.py does: objects of one id are one trace."""

    def __init__(self, path: Path) -> None:
        self.by_id: dict[int, dict[str, Any]] = {}
        for record in json.loads(path.read_text()):
            trace = self.by_id.setdefault(record["id"], {"ns": {}, "tensors": []})
            for point in record.get("timestamps", ()):
                assert point["name"] not in trace["ns"], "a point twice"
                trace["ns"][point["name"]] = point["ns"]
            if "tensor" in record:
                trace["tensors"].append((record["activity"], record["tensor"]))
            trace |= {key: record[key] for key in record if key not in ("timestamps", "tensor")}

    def named(self, request_id: str) -> dict[str, Any]:
        """The one trace of a request with that id."""
        (found,) = [t for t in self.by_id.values() if t.get("request_id") == request_id]
        return found


def wait_for_traces(path: Path, count: int) -> Traces:
    """Until the file has so many traces: they are written by a thread, soon after the answers."""
    eventually(lambda: _written(path) == count, f"no {count} traces in {path}")
    return Traces(path)


def _written(path: Path) -> int:
    """How many traces the file has; 0 while a write is under way."""
    try:
        return len(Traces(path).by_id)
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def spans_ns(points: Mapping[str, int], *, receive: str, send: str) -> dict[str, int]:
    """The durations that trace_summary.py adds up; none may be negative."""
    pairs = {
        "RECEIVE": (f"{receive}_START", f"{receive}_END"),
        "REQUEST": ("REQUEST_START", "REQUEST_END"),
        "QUEUE": ("QUEUE_START", "COMPUTE_START"),
        "COMPUTE": ("COMPUTE_START", "COMPUTE_END"),
        "COMPUTE_INPUT": ("COMPUTE_START", "COMPUTE_INPUT_END"),
        "COMPUTE_INFER": ("COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START"),
        "COMPUTE_OUTPUT": ("COMPUTE_OUTPUT_START", "COMPUTE_END"),
        "SEND": (f"{send}_START", f"{send}_END"),
        "ALL": (f"{receive}_START", f"{send}_END"),
    }
    spans = {name: points[end] - points[start] for name, (start, end) in pairs.items()}
    assert min(spans.values()) >= 0, spans
    return spans


def ask(server: Served, name: str, **headers: str) -> None:
    """One request over HTTP."""
    client = tritonclient.http.InferenceServerClient(server.http)
    x = tritonclient.http.InferInput("X", list(ONE.shape), "FP32").set_data_from_numpy(ONE)
    with client:
        client.infer("puppet", [x], request_id=name, headers=headers)


def ask_rpc(server: Served, name: str, **headers: str) -> None:
    """One request over gRPC."""
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    x = tritonclient.grpc.InferInput("X", list(ONE.shape), "FP32").set_data_from_numpy(ONE)
    with client:
        client.infer("puppet", [x], request_id=name, headers=headers)


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tracing_is_off_at_first_and_both_protocols_say_so(
    server: Served, http: Any, rpc: Any
) -> None:
    assert http.get_trace_settings() == DEFAULTS
    assert http.get_trace_settings("puppet") == DEFAULTS
    over_rpc = rpc.get_trace_settings("puppet", as_json=True)["settings"]
    assert {name: each.get("value", []) for name, each in over_rpc.items()} == {
        name: value if isinstance(value, list) else [value] for name, value in DEFAULTS.items()
    }
    assert "trace" in server.get("/v2").json["extensions"]


@pytest.mark.parametrize("protocol", ["http", "rpc"])
def test_a_models_settings_hide_the_servers_until_they_are_cleared(
    http: Any, rpc: Any, protocol: str
) -> None:
    client = http if protocol == "http" else rpc
    client.update_trace_settings("puppet", {"trace_rate": "3", "log_frequency": "5"})
    client.update_trace_settings(settings={"trace_rate": "7", "trace_count": "9"})
    try:
        shown = http.get_trace_settings("puppet")
        assert (shown["trace_rate"], shown["trace_count"], shown["log_frequency"]) == (
            "3",
            "9",
            "5",
        )
        assert http.get_trace_settings("puppet_pair")["trace_rate"] == "7"
        client.update_trace_settings("puppet", {"trace_rate": None})
        assert http.get_trace_settings("puppet")["trace_rate"] == "7"
    finally:
        client.update_trace_settings(settings={"trace_rate": None, "trace_count": None})
        client.update_trace_settings("puppet", {"trace_rate": None, "log_frequency": None})
    assert http.get_trace_settings("puppet") == DEFAULTS


@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/models/puppet/trace/setting"])
@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"trace_rate": "x"}, 400, "Unable to parse 'trace_rate', got: x"),
        ({"trace_rate": 5}, 400, "attempt to access JSON non-string as string"),
        ({"trace_level": "TENSORS"}, 400, "attempt to access JSON non-array as array"),
        ({"trace_level": [1]}, 400, "attempt to access JSON non-string as string"),
        ({"trace_level": ["LOUD"]}, 400, "invalid value for trace level option: LOUD"),
        ({"trace_level": ["OFF", "TENSORS"]}, 400, "Expect only one trace level 'OFF'"),
        ({"trace_level": ["TENSORS"]}, 400, "trace file name is not given"),
        ({"trace_file": "/tmp/x"}, 501, "trace file location can not be updated"),
        ({"trace_file": None}, 501, "trace file location can not be updated"),
        ({"trace_loud": "1"}, 400, "unknown trace setting 'trace_loud'"),
        ("[]", 400, "not a JSON object"),
    ],
)
def test_bad_settings_over_http_change_nothing(
    server: Served, path: str, body: Any, status: int, text: str
) -> None:
    answer = server.request("POST", path, body)
    assert (answer.status, text in answer.error) == (status, True), answer.error
    assert server.get(path).json == DEFAULTS


@pytest.mark.parametrize(
    ("settings", "code", "text"),
    [
        ({"trace_rate": ["1", "2"]}, "INVALID_ARGUMENT", "expect only 1 value for 'trace_rate'"),
        ({"trace_count": ["-2"]}, "INVALID_ARGUMENT", "Expecting value >= -1, got: -2"),
        ({"log_frequency": ["x"]}, "INVALID_ARGUMENT", "Unable to parse 'log_frequency', got: x"),
        ({"trace_file": ["x"]}, "UNIMPLEMENTED", "trace file location can not be updated"),
        ({"trace_loud": ["1"]}, "INVALID_ARGUMENT", "unknown trace setting 'trace_loud'"),
    ],
)
def test_bad_settings_over_grpc_change_nothing(
    server: Served, channel: grpc.Channel, settings: dict[str, list[str]], code: str, text: str
) -> None:
    request = pb.TraceSettingRequest(model_name="puppet")
    for name, values in settings.items():
        request.settings[name].value.extend(values)
    given, told = failure(channel, "TraceSetting", request)
    assert (given, text in told) == (code, True), told
    assert server.get("/v2/trace/setting").json == DEFAULTS


def test_an_unknown_model_is_refused_in_tritons_words(server: Served, http: Any, rpc: Any) -> None:
    for client in (http, rpc):
        with pytest.raises(InferenceServerException, match="Request for unknown model : nobody"):
            client.get_trace_settings("nobody")
        with pytest.raises(InferenceServerException, match="Request for unknown model : nobody"):
            client.update_trace_settings("nobody", {"trace_rate": "1"})
    assert server.get("/v2/models/puppet/versions/1/trace/setting").status == 404


# ── traces as files ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_point_of_a_request_over_both_protocols(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet(*EVERY)
    ask(server, "web")
    ask_rpc(server, "rpc")
    server.infer("puppet", json_request(1.0, id='with"quote'))
    with streamer(server.grpc) as stream:
        for name in ("flow", "on"):
            stream.send(name)
            assert stream.next().id == name
    plain = {"X": [1, 2.5], "id": "plain"}
    server.request("POST", "/v2/models/puppet/generate_stream", plain)
    traces = wait_for_traces(tmp_path / "trace.json", 6)
    for name, receive, send in (
        ("web", "HTTP_RECV", "HTTP_SEND"),
        ("plain", "HTTP_RECV", "HTTP_SEND"),
        ("flow", "GRPC_WAITREAD", "GRPC_SEND"),
        ("on", "GRPC_WAITREAD", "GRPC_SEND"),
        ("rpc", "GRPC_WAITREAD", "GRPC_SEND"),
        ('with"quote', "HTTP_RECV", "HTTP_SEND"),
    ):
        trace = traces.named(name)
        assert (trace["model_name"], trace["model_version"]) == ("puppet", 1)
        assert "parent_id" not in trace
        spans = spans_ns(trace["ns"], receive=receive, send=send)
        assert spans["REQUEST"] >= spans["QUEUE"] + spans["COMPUTE"]
        assert spans["ALL"] >= spans["RECEIVE"] + spans["REQUEST"] + spans["SEND"]
        assert trace["ns"]["INFER_RESPONSE_COMPLETE"] <= trace["ns"][f"{send}_START"]
        assert not trace["tensors"]


def test_the_times_are_the_workers_own(puppet: Callable[..., Served], tmp_path: Path) -> None:
    server = puppet(*EVERY)
    ask(server, "one")
    stats = server.statistics("puppet")["inference_stats"]
    points = wait_for_traces(tmp_path / "trace.json", 1).named("one")["ns"]
    spans = spans_ns(points, receive="HTTP_RECV", send="HTTP_SEND")
    for part in ("input", "infer", "output"):
        assert spans[f"COMPUTE_{part.upper()}"] == stats[f"compute_{part}"]["ns"]


def test_a_request_that_waits_shows_where(puppet: Callable[..., Served], tmp_path: Path) -> None:
    server = puppet(*EVERY)
    with grpc.insecure_channel(server.grpc) as channel:
        with Gate(tmp_path, server, channel, "puppet") as gate:
            late = gate.send(row(1.0), id="late")
            gate.wait_arrived(2)
        late.result(timeout=30)
    points = wait_for_traces(tmp_path / "trace.json", 2).named("late")["ns"]
    spans = spans_ns(points, receive="GRPC_WAITREAD", send="GRPC_SEND")
    assert spans["QUEUE"] > spans["COMPUTE"]


def test_tensors_are_traced_where_it_is_asked_for(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet(*EVERY, "--trace-config", "level=TENSORS")
    ask_rpc(server, "one")
    trace = wait_for_traces(tmp_path / "trace.json", 1).named("one")
    x = {"name": "X", "data": "1,2.5", "shape": "1,2", "dtype": "FP32"}
    given, *outputs = trace["tensors"]
    assert given == ("TENSOR_QUEUE_INPUT", x)
    assert ("TENSOR_BACKEND_OUTPUT", {**x, "name": "Y"}) in outputs
    (told,) = [tensor for _, tensor in outputs if tensor["name"] == "TOLD"]
    assert (told["dtype"], told["shape"], told["data"][:2]) == ("BYTES", "1,1", '"{')


def test_settings_that_tritonclient_changes_hold_at_once(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet()
    ask(server, "before")
    with tritonclient.grpc.InferenceServerClient(server.grpc) as rpc:
        rpc.update_trace_settings("puppet", {"trace_level": ["TIMESTAMPS"], "trace_rate": "2"})
        for number in range(1, 5):
            ask(server, f"r{number}")
        wait_for_traces(tmp_path / "trace.json", 2)
        rpc.update_trace_settings("puppet", {"trace_level": ["OFF"]})
    ask(server, "after")
    assert server.stop() == 0
    traces = Traces(tmp_path / "trace.json")
    assert [trace["request_id"] for trace in traces.by_id.values()] == ["r2", "r4"]


def test_numbered_files_and_a_count_that_ends(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet(
        "--trace-config=triton,log-frequency=2", "--trace-config=rate=1,count=3,level=TIMESTAMPS"
    )
    assert server.get("/v2/trace/setting").json["trace_count"] == "3"
    for number in range(1, 6):
        ask(server, f"r{number}")
    wait_for_traces(tmp_path / "trace.json.0", 2)
    wait_for_traces(tmp_path / "trace.json.1", 1)
    shown = server.get("/v2/trace/setting").json
    assert (shown["trace_count"], shown["log_frequency"]) == ("0", "2")
    assert not (tmp_path / "trace.json").exists()


def test_what_was_collected_is_written_at_the_stop(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet(*EVERY, "--trace-config=triton,log-frequency=100")
    ask(server, "one")
    assert server.stop() == 0
    assert Traces(tmp_path / "trace.json.0").named("one")
    assert not list(tmp_path.glob("*.part"))


def test_errors_have_their_traces_too(puppet: Callable[..., Served], tmp_path: Path) -> None:
    server = puppet(*EVERY)
    failed = server.infer("puppet", json_request(1.0, id="failed", parameters={"error": "no"}))
    assert failed.status == 500
    broken = server.infer("puppet", json_request(1.0, id="broken", parameters={"raise": "no"}))
    assert broken.status == 500
    killed = server.infer("puppet", json_request(1.0, id="killed", parameters={"die": True}))
    assert killed.status == 500
    traces = wait_for_traces(tmp_path / "trace.json", 3)
    assert "COMPUTE_END" in traces.named("failed")["ns"]
    for name in ("broken", "killed"):
        points = traces.named(name)["ns"]
        assert "COMPUTE_END" not in points
        assert points["REQUEST_START"] <= points["REQUEST_END"] <= points["HTTP_SEND_END"]


def test_a_client_that_goes_away_ends_its_trace(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet(*EVERY)
    with (
        grpc.insecure_channel(server.grpc) as channel,
        Gate(tmp_path, server, channel, "puppet") as gate,
    ):
        gone = server.start_infer("puppet", json_request(1.0, id="gone"))
        gate.wait_arrived(2)
        assert isinstance(gone.sock, socket.socket)
        gone.close()
        trace = wait_for_traces(tmp_path / "trace.json", 1).named("gone")
    assert "REQUEST_END" in trace["ns"]
    assert "COMPUTE_END" not in trace["ns"]


def test_a_worker_that_is_killed_leaves_one_whole_trace(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    server = puppet(*EVERY)
    (worker,) = server.workers("puppet")
    with (
        grpc.insecure_channel(server.grpc) as channel,
        Gate(tmp_path, server, channel, "puppet") as gate,
    ):
        os.kill(worker, signal.SIGKILL)
        gate.open()
        gate.first.result(timeout=30)
    (trace,) = wait_for_traces(tmp_path / "trace.json", 1).by_id.values()
    spans_ns(trace["ns"], receive="GRPC_WAITREAD", send="GRPC_SEND")


def test_a_full_disk_is_told_once_and_serving_goes_on(
    serve: Callable[..., Served], front: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "puppet", "puppet", f"max_batch_size: 8\n{PUPPET}")
    server = serve(tmp_path, front, *EVERY, "--trace-config=triton,file=/dev/full").wait_ready()
    for number in range(5):
        ask(server, f"r{number}")
    eventually(lambda: "trace_error" in server.get("/v2/trace/setting").json, "no trace_error")
    shown = server.get("/v2/trace/setting").json
    assert shown["trace_error"] == "/dev/full can't be written: No space left on device"
    assert server.log.count("traces are dropped") == 1


def test_a_file_that_cannot_be_written_is_refused_when_tracing_is_switched_on(
    serve: Callable[..., Served], front: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "puppet", "puppet", f"max_batch_size: 8\n{PUPPET}")
    file = tmp_path / "no" / "trace.json"
    server = serve(tmp_path / "models", front, f"--trace-config=triton,file={file}").wait_ready()
    answer = server.request("POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]})
    assert (answer.status, "No such file or directory" in answer.error) == (400, True)
    file.parent.mkdir()
    answer = server.request("POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]})
    assert answer.json["trace_level"] == ["TIMESTAMPS"]
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--trace-config=level=LOUD",), "invalid value for trace level option: LOUD"),
        ((*EVERY, "--trace-config=triton,file=/no/such/file"), "No such file or directory"),
    ],
)
def test_bad_flags_stop_the_start(tmp_path: Path, flags: tuple[str, ...], text: str) -> None:
    command = [sys.executable, "-m", "penstock.cli", "serve", str(tmp_path), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, "--trace-config" in ended.stderr) == (2, True)
    assert text in ended.stderr


# ── traces as spans ─────────────────────────────────────────────────────────────────────────────────────────────────


class Collector:
    """A small OTLP receiver."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, request: Any) -> None:
        """One export."""
        for batch in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in batch.resource.attributes}
            for scope in batch.scope_spans:
                self.spans += scope.spans
                self.resources += [attributes] * len(scope.spans)

    def close(self) -> None:
        """Stop, and wait for that."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    receiver = Collector()
    yield receiver
    receiver.close()


def otel(collector: Collector, *more: str) -> list[str]:
    """The flags of a server that sends its spans there."""
    settings = [
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        f"opentelemetry,url={collector.url}",
        "opentelemetry,bsp_schedule_delay=50",
        *more,
    ]
    return [f"--trace-config={setting}" for setting in settings]


@pytest.mark.parametrize("send", [ask, ask_rpc])
def test_a_clients_trace_goes_on_in_the_server(
    puppet: Callable[..., Served], collector: Collector, send: Callable[..., None]
) -> None:
    server = puppet(*otel(collector, "opentelemetry,resource=service.name=shop"))
    send(server, "one", traceparent=PARENT)
    send(server, "two")
    eventually(lambda: len(collector.spans) == 3, "no three spans")
    spans = {span.name: span for span in collector.spans}
    root, request, compute = (spans[name] for name in ("InferRequest", "puppet", "compute"))
    assert {span.trace_id.hex() for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    assert request.parent_span_id == root.span_id
    assert compute.parent_span_id == request.span_id
    attributes = {a.key: a.value for a in request.attributes}
    assert attributes["triton.model_name"].string_value == "puppet"
    assert attributes["triton.request_id"].string_value == "one"
    names = [event.name for event in root.events]
    first, last = ("HTTP_RECV_START", "HTTP_SEND_END")
    if send is ask_rpc:
        first, last = ("GRPC_WAITREAD_START", "GRPC_SEND_END")
    assert (names[0], names[-1]) == (first, last)
    assert collector.resources[0]["service.name"] == "shop"


def test_spans_that_wait_are_sent_at_the_stop(
    puppet: Callable[..., Served], collector: Collector
) -> None:
    server = puppet(*otel(collector, "rate=1", "opentelemetry,bsp_schedule_delay=60000"))
    server.infer("puppet", {"inputs": [json_tensor("X", ONE)], "parameters": {"error": "no"}})
    shown = server.get("/v2/trace/setting").json
    assert (shown["trace_mode"], shown["url"]) == ("opentelemetry", collector.url)
    assert "trace_file" not in shown
    assert not collector.spans
    assert server.stop() == 0
    assert sorted(span.name for span in collector.spans) == ["InferRequest", "compute", "puppet"]
    (root,) = [span for span in collector.spans if span.name == "InferRequest"]
    assert (root.status.code, root.status.message) == (2, "no")


def test_a_collector_that_is_not_there_harms_nobody(puppet: Callable[..., Served]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = puppet(
        "--trace-config=mode=opentelemetry",
        "--trace-config=rate=1,level=TIMESTAMPS",
        f"--trace-config=opentelemetry,url=http://127.0.0.1:{port}/v1/traces",
        "--trace-config=opentelemetry,bsp_schedule_delay=10",
    )
    for number in range(5):
        ask_rpc(server, f"r{number}")
    assert server.stop() == 0


def test_requests_of_other_shapes_are_traced_alike(
    puppet: Callable[..., Served], tmp_path: Path
) -> None:
    """A large one is decoded beside the event loop."""
    server = puppet(*EVERY)
    large = np.ones((1, 700_000), np.float32)
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        call(infer_request("puppet", large, id="large").SerializeToString(), timeout=30)
    points = wait_for_traces(tmp_path / "trace.json", 1).named("large")["ns"]
    spans_ns(points, receive="GRPC_WAITREAD", send="GRPC_SEND")
