"""Captured requests of a running server, on both fronts: whose are kept, what of them, and that they survive."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from captured import KEY, lake, rows
from penstock.audit.lines import Record
from penstock.audit.reading import Filter, records
from penstock.capture.redaction import Redaction
from penstock.model_digest import folder_digest
from penstock.types import Array
from served import FRONTS, Served, json_tensor
from served_models import write_add_sub, write_model
from shared_regions import Client, region
from supervised import eventually
from tenant_commands import new_key, tenants

pytestmark = pytest.mark.e2e

CONFIG = """
allow_client_shm = true
cache_config = "local,size=1048576"
[access]
mode = "required"
tenants_file = "tenants.db"
anonymous_roles = ["monitor"]
[audit]
folder = "audit"
[capture]
folder = "lake"
hash_key = "env:CAPTURE_KEY"
rotate_secs = 0.2
max_record_bytes = 100000
[[capture.rules]]
models = ["add_sub", "echo"]
sample = 1
tensors = ["*"]
[[capture.rules]]
models = ["text"]
tenants = ["open"]
sample = 1
tensors = ["*"]
drop = ["X"]
hash = ["Y"]
"""
TEXT = """
    max_batch_size: 4
    response_cache { enable: true }
    input [ { name: "X" data_type: TYPE_STRING dims: [ 1 ] } ]
    output [ { name: "Y" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
ECHO = """
    model_transaction_policy { decoupled: true }
    input [ { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }, { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] } ]
    output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] } ]
"""
WRITER_ENDED = "the writer of captured requests"
"""That it was killed, by a test."""
ROW = np.arange(4, dtype=np.float32)


class Bench:
    """A server that captures, and tenants of whom one allows it."""

    def __init__(self, folder: Path, front: str) -> None:
        self.folder, self.lake = folder, folder / "lake"
        self.models = folder / "models"
        write_add_sub(self.models / "add_sub")
        write_model(self.models / "text", "mirror", TEXT)
        write_model(self.models / "echo", "repeat", ECHO)
        (folder / "penstock.toml").write_text(CONFIG)
        (folder / "audit").mkdir()
        self.where = f"--config={folder / 'penstock.toml'}"
        self.keys = {name: new_key(self.where, name) for name in ("open", "closed")}
        self.keys["boss"] = tenants(
            "key", "create", "closed", "--role", "tenant-admin", self.where
        ).strip()
        tenants("capture", "open", "*", self.where)
        self.served = Served(
            self.models, front, self.where, environment={"CAPTURE_KEY": KEY.decode()}
        ).wait_ready()

    def by(self, tenant: str) -> dict[str, str]:
        """Headers of who is of that tenant."""
        return {"authorization": f"Bearer {self.keys[tenant]}"}

    def infer(self, tenant: str, request_id: str, model: str = "add_sub", **fields: Any) -> Any:
        """Over HTTP, as JSON."""
        inputs = [json_tensor(name, ROW) for name in ("INPUT0", "INPUT1")]
        if model == "text":
            inputs = [{"name": "X", "datatype": "BYTES", "shape": [1, 1], "data": ["alice"]}]
        body = {"id": request_id, "inputs": inputs, **fields}
        answer = self.served.request("POST", f"/v2/models/{model}/infer", body, self.by(tenant))
        assert answer.status == 200, answer.body
        return answer.json

    def kept(self, model: str, *ids: str) -> list[dict[str, Any]]:
        """The rows of these requests, once there are any of each."""

        def found() -> list[dict[str, Any]]:
            return [row for row in rows(self.lake, model) if row["request_id"] in ids]

        eventually(
            lambda: {row["request_id"] for row in found()} == set(ids), f"{ids} are not kept"
        )
        return sorted(found(), key=lambda row: (ids.index(row["request_id"]), row["response"]))

    def skipped(self, reason: str) -> float:
        return self.served.metrics()[f'penstock_capture_skipped_total{{reason="{reason}"}}']

    def events(self, action: str) -> list[Record]:
        return list(records(self.folder / "audit", Filter(limit=1000, action=action)))


@pytest.fixture(scope="module", params=FRONTS)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """At its end nothing may be left, and what was asked last is kept."""
    with ExitStack() as stack:
        bench = Bench(tmp_path_factory.mktemp("capturing"), request.param)
        stack.callback(bench.served.close)
        yield bench
        bench.infer("open", "the last one")
        assert bench.served.stop() == 0, bench.served.log
        assert "the last one" in {row["request_id"] for row in rows(bench.lake, "add_sub")}
        assert not list((bench.lake / ".inprogress").iterdir())
        assert [event.action for event in bench.events("capture.stop")] == ["capture.stop"]
        assert "captured" not in bench.served.log.replace(WRITER_ENDED, "")


def grpc_inputs(names: tuple[str, ...], array: Array, datatype: str = "FP32") -> list[Any]:
    inputs = []
    for name in names:
        tensor = tritonclient.grpc.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def test_whoever_starts_the_server_sees_that_requests_are_kept(bench: Bench) -> None:
    assert f"requests are kept in {bench.lake}: 100 % of add_sub, echo" in bench.served.banner
    assert "of tenants that allow it" in bench.served.banner


def test_requests_over_both_protocols(bench: Bench) -> None:
    bench.infer("open", "json")
    with tritonclient.http.InferenceServerClient(bench.served.http) as http:
        inputs = [tritonclient.http.InferInput(name, [4], "FP32") for name in ("INPUT0", "INPUT1")]
        for each in inputs:
            each.set_data_from_numpy(ROW)
        http.infer("add_sub", inputs, request_id="binary", headers=bench.by("open"))
    with tritonclient.grpc.InferenceServerClient(bench.served.grpc) as rpc:
        inputs = grpc_inputs(("INPUT0", "INPUT1"), ROW)
        rpc.infer("add_sub", inputs, request_id="grpc", headers=bench.by("open"))
    found = bench.kept("add_sub", "json", "binary", "grpc")
    assert len(found) == 3
    for row in found:
        assert row["input_INPUT0"] == row["input_INPUT1"] == ROW.tolist()
        assert (row["output_OUTPUT0"], row["shape_output_OUTPUT0"]) == ((ROW * 2).tolist(), [4])
        assert (row["tenant"], row["model_version"], row["outcome"]) == ("open", 1, "ok")
        assert row["model_digest"] == folder_digest(bench.models / "add_sub" / "1")
        assert 0 < row["duration_us"] < 60_000_000


def test_files_are_for_the_servers_user_alone(bench: Bench) -> None:
    bench.infer("open", "file")
    bench.kept("add_sub", "file")
    for path in bench.lake.rglob("*"):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_only_requests_of_tenants_that_allow_it(bench: Bench) -> None:
    before = bench.skipped("not_allowed")
    bench.infer("closed", "never")
    assert bench.skipped("not_allowed") == before + 1
    path = "/v2/tenants/closed"
    # it is the tenant's own to allow, but not every client's
    refused = bench.served.request("POST", path, {"captured": ["*"]}, bench.by("closed"))
    assert refused.status == 403
    allowed = bench.served.request("POST", path, {"captured": ["add_*"]}, bench.by("boss"))
    assert (allowed.status, allowed.json["captured"]) == (200, ["add_*"])
    # what bounds it is not
    both = {"captured": [], "weight": 9}
    assert bench.served.request("POST", path, both, bench.by("boss")).status == 403

    def is_kept() -> bool:
        before = bench.skipped("not_allowed")
        bench.infer("closed", "since")
        return bench.skipped("not_allowed") == before

    eventually(is_kept, "it is not effective")
    assert bench.kept("add_sub", "since")[-1]["tenant"] == "closed"
    tenants("capture", "closed", "--none", bench.where)
    eventually(lambda: not is_kept(), "it can't be taken back")
    bench.infer("closed", "not any more")
    bench.infer("open", "after it")
    bench.kept("add_sub", "after it")
    ids = {row["request_id"] for row in rows(bench.lake, "add_sub")}
    assert not {"never", "not any more"} & ids
    changes = bench.events("tenants")
    told = [
        e.details["captured"] for e in changes if e.tenant == "closed" and "captured" in e.details
    ]
    assert told == ["('add_*',)"] * 2 + ["none"] * 2


def test_a_client_may_say_no(bench: Bench) -> None:
    before = bench.skipped("opted_out")
    bench.infer("open", "no", parameters={"capture": False})
    with tritonclient.grpc.InferenceServerClient(bench.served.grpc) as rpc:
        inputs = grpc_inputs(("INPUT0", "INPUT1"), ROW)
        no = {"capture": False}
        rpc.infer("add_sub", inputs, request_id="no", headers=bench.by("open"), parameters=no)
    assert bench.skipped("opted_out") == before + 2
    bench.infer("open", "yes")
    bench.kept("add_sub", "yes")
    assert "no" not in {row["request_id"] for row in rows(bench.lake, "add_sub")}


def test_what_is_dropped_and_hashed_also_from_the_cache(bench: Bench) -> None:
    for request_id in ("run", "hit"):
        bench.infer("open", request_id, "text")
    assert bench.served.metric("nv_cache_num_hits_per_model", "text") >= 1
    run, hit = bench.kept("text", "run", "hit")
    redaction = Redaction(key=lambda: KEY)
    redaction.refresh()
    assert run["output_Y"] == hit["output_Y"] == [redaction.tensor(b"alice")]
    assert "input_X" not in run
    files = b"".join(path.read_bytes() for path in bench.lake.glob("model=text/*/*"))
    assert b"alice" not in files


def test_a_decoupled_models_responses_are_a_row_each(bench: Bench) -> None:
    with tritonclient.grpc.InferenceServerClient(bench.served.grpc) as rpc:
        heard: list[Any] = []
        rpc.start_stream(
            lambda result, error: heard.append(error or result), headers=bench.by("open")
        )
        values = np.array([7, 8, 9], np.int32)
        inputs = grpc_inputs(("IN",), values, "INT32")
        inputs += grpc_inputs(("DELAY",), np.zeros(3, np.uint32), "UINT32")
        rpc.async_stream_infer("echo", inputs, request_id="many")
        empty = grpc_inputs(("IN",), np.zeros(0, np.int32), "INT32")
        empty += grpc_inputs(("DELAY",), np.zeros(0, np.uint32), "UINT32")
        rpc.async_stream_infer("echo", empty, request_id="none")
        eventually(lambda: len(heard) >= 3, "no responses")
        found = bench.kept("echo", "many", "none")
        rpc.stop_stream()
    assert [row["output_OUT"] for row in found] == [[7], [8], [9], None]
    assert [row["response"] for row in found] == [0, 1, 2, 0]
    assert [row["input_IN"] for row in found] == [[7, 8, 9], None, None, []]
    assert len({row["record"] for row in found}) == 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tensors_in_shared_memory(bench: Bench, protocol: str) -> None:
    headers = bench.by("open")
    with region(64) as shared, Client(bench.served, protocol) as client:
        shared.put(ROW + 1)
        client.client.register_system_shared_memory(
            shared.name, shared.key, shared.byte_size, headers=headers
        )
        inputs = [
            client.input("INPUT0", "FP32", [4], shared.name, 16),
            client.sent("INPUT1", "FP32", ROW),
        ]
        outputs = [client.output("OUTPUT0", shared.name, 16, 32)]
        name = f"shared {protocol}"
        client.infer("add_sub", inputs, outputs, request_id=name, headers=headers)
        written = shared.get("FP32", [4], 32)
        client.client.unregister_system_shared_memory(shared.name, headers=headers)
    (row,) = bench.kept("add_sub", name)
    assert row["input_INPUT0"] == (ROW + 1).tolist()
    assert row["output_OUTPUT0"] == written.tolist() == (ROW * 2 + 1).tolist()


def test_errors_are_outcomes(bench: Bench) -> None:
    with tritonclient.grpc.InferenceServerClient(bench.served.grpc) as rpc:
        heard: list[Any] = []
        rpc.start_stream(
            lambda result, error: heard.append(error or result), headers=bench.by("open")
        )
        inputs = grpc_inputs(("IN",), np.array([1, 2], np.int32), "INT32")
        inputs += grpc_inputs(("DELAY",), np.zeros(1, np.uint32), "UINT32")
        rpc.async_stream_infer("echo", inputs, request_id="wrong")
        found = bench.kept("echo", "wrong")
        rpc.stop_stream()
    # one response came before it
    assert {row["outcome"] for row in found} == {"ModelFailed"}
    assert found[0]["input_IN"] == [1, 2]


def test_what_is_too_large_is_answered_and_counted(bench: Bench) -> None:
    before = bench.skipped("too_large")
    with tritonclient.grpc.InferenceServerClient(bench.served.grpc) as rpc:
        heard: list[Any] = []
        rpc.start_stream(
            lambda result, error: heard.append(error or result), headers=bench.by("open")
        )
        large = np.zeros(30_000, np.int32)
        inputs = grpc_inputs(("IN",), large, "INT32")
        inputs += grpc_inputs(("DELAY",), np.zeros(1, np.uint32), "UINT32")
        rpc.async_stream_infer("echo", inputs, request_id="large")
        eventually(lambda: bool(heard), "no answer")
        rpc.stop_stream()
    assert bench.skipped("too_large") == before + 1


def test_the_audit_log_says_what_is_kept(bench: Bench) -> None:
    bench.infer("open", "audited", "text")
    (start,) = bench.events("capture.start")
    assert start.details["folder"] == str(bench.lake)
    assert start.details["rule.1"] == "1 of text for open"
    eventually(
        lambda: bool([e for e in bench.events("capture.model") if e.model == "text"]), "no record"
    )
    (model,) = [e for e in bench.events("capture.model") if e.model == "text"]
    assert model.details == {"version": "1", "sample": "1", "tenants": "open", "hashed": "Y"}


def test_a_writer_that_is_killed_costs_no_request(bench: Bench) -> None:
    (writer,) = bench.served.processes("penstock.capture.main")
    os.kill(writer, signal.SIGKILL)
    # they are answered while there is none
    for number in range(5):
        bench.infer("open", f"while {number}")

    def another() -> bool:
        return bench.served.processes("penstock.capture.main") not in ([], [writer])

    eventually(another, "no other writer")
    bench.infer("open", "then")
    bench.kept("add_sub", "then")
    # all files are whole
    assert lake(bench.lake, "add_sub").num_rows > 0
    lost = bench.served.metrics()
    assert lost['penstock_capture_lost_total{reason="queue_full"}'] == 0
    assert lost["penstock_capture_failing"] == 0
