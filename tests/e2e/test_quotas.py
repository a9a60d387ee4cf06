"""Tenants' quotas on a running server: what clients are told, and that nothing is charged after a request has ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from tritonclient.utils import InferenceServerException

from ensemble_configs import ensemble, step
from ensemble_models import write_ensemble
from grpc_calls import MODEL_INFER, infer_request, pb
from penstock.access.tenants import TenantStore
from redis_server import RedisServer
from served import FRONTS, HttpAnswer, Served, json_request
from served_models import PUPPET, write_model
from streamers import bare_stream
from supervised import eventually

pytestmark = pytest.mark.e2e

LIMITS: dict[str, dict[str, float]] = {
    "rated": {"requests_per_s": 0.01, "burst_requests": 2},
    "rows": {"rows_per_s": 100, "burst_rows": 4},
    "daily": {"requests_per_day": 2},
    "flying": {"in_flight": 1, "queued_bytes": 1000},
    "few": {"in_flight": 4},
    "changing": {"requests_per_s": 0.001},
    "weighted": {},
    "free": {},
}
TELLER = """
    max_batch_size: 0
    model_transaction_policy { decoupled: true }
    input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
    output [
      { name: "TOLD" data_type: TYPE_STRING dims: [ 1 ] },
      { name: "N" data_type: TYPE_INT32 dims: [ 1 ] }
    ]
"""
ONE = np.array([[1.0]], np.float32)
BATCHED = "max_batch_size: 8\ndynamic_batching { }\n"
OUTER = ensemble(step("puppet", "X=IN", "Y=OUT"), name="outer")


class Quoted:
    """A server with a store of tenants, each of which has a key."""

    def __init__(
        self, folder: Path, front: str, *flags: str, store: TenantStore, tenants: Path
    ) -> None:
        self.store = store
        self.keys = {t: store.keys.create(t).text for t in store.read().tenants}
        monitor = store.keys.create("free", roles=("monitor",)).text
        self.monitoring = {"authorization": f"Bearer {monitor}"}
        self.served = Served(
            folder,
            front,
            "--access-mode=required",
            f"--access-tenants-file={tenants}",
            "--quotas-usage-flush-secs=0.2",
            *flags,
        ).wait_ready()
        self.channel = grpc.insecure_channel(self.served.grpc)

    def infer(self, tenant: str, model: str = "puppet", rows: int = 1) -> HttpAnswer:
        """Over HTTP."""
        body = json_request(*[1.0], id="1")
        body["inputs"][0] |= {"shape": [rows, 1], "data": [1.0] * rows}
        return self.served.infer(model, body, authorization=f"Bearer {self.keys[tenant]}")

    def call(self, tenant: str, model: str = "puppet", timeout_s: float = 60, **fields: Any) -> Any:
        """Over gRPC; the call's future."""
        unary = self.channel.unary_unary(
            MODEL_INFER,
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        request = infer_request(model, fields.pop("array", ONE), **fields)
        return unary.future(request, timeout=timeout_s, metadata=self.metadata(tenant))

    def metadata(self, tenant: str) -> tuple[tuple[str, str]]:
        """The tenant's key."""
        return (("authorization", f"Bearer {self.keys[tenant]}"),)

    def metrics(self) -> str:
        """The page."""
        page = self.served.request(
            "GET",
            "/metrics",
            headers=self.monitoring,
            port=self.served.settings.metrics_port,
        )
        assert page.status == 200, page.body
        return page.body.decode()

    def refused(self, tenant: str) -> float:
        """How many of the tenant's requests were over a quota."""
        pattern = rf'^penstock_tenant_refused_total{{tenant="{tenant}"}} (.+)$'
        found = re.search(pattern, self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0

    def close(self) -> None:
        """End it; nothing may be left."""
        self.channel.close()
        self.served.close()


def make_store(path: Path) -> TenantStore:
    store = TenantStore(path)
    for tenant, limits in LIMITS.items():
        store.create(tenant)
        store.set_limits(tenant, limits)
    store.change("weighted", weight=4)
    return store


def write_models(folder: Path) -> Path:
    write_model(folder / "puppet", "puppet", BATCHED + PUPPET)
    write_model(
        folder / "cached", "puppet", f"{BATCHED}response_cache {{ enable: true }}\n{PUPPET}"
    )
    short = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }\n"
    write_model(folder / "short", "puppet", f"max_batch_size: 1\n{short}{PUPPET}")
    write_model(folder / "teller", "teller", TELLER)
    write_ensemble(folder, OUTER)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=FRONTS)
def quoted(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Quoted]:
    tenants = tmp_path_factory.mktemp("tenants") / "tenants.db"
    store = make_store(tenants)
    cache = "--cache-config=local,size=1048576"
    server = Quoted(models, request.param, cache, store=store, tenants=tenants)
    try:
        yield server
        assert server.served.stop() == 0, server.served.log
    finally:
        server.close()
        store.close()


# ── what clients are told ───────────────────────────────────────────────────────────────────────────────────────────


def test_curl_is_told_when_to_come_back(quoted: Quoted) -> None:
    for _ in range(2):
        assert quoted.infer("rated").status == 200
    told = subprocess.run(
        [
            *("curl", "-sS", "-D", "-", "-H", f"x-api-key: {quoted.keys['rated']}", "-d"),
            '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}',
            f"http://{quoted.served.http}/v2/models/puppet/infer",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    head, _, body = told.replace("\r", "").partition("\n\n")
    status, *lines = head.splitlines()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert " 429 " in f"{status} "
    assert 90 <= int(headers["retry-after"]) <= 100
    assert headers["ratelimit-policy"] == '"requests-per-second";q=2;w=200'
    assert headers["ratelimit"].startswith('"requests-per-second";r=0;t=')
    assert headers["ratelimit-limit"] == "2"
    assert headers["ratelimit-remaining"] == "0"
    assert 190 <= int(headers["ratelimit-reset"]) <= 200
    assert body == (
        '{"error":"tenant \'rated\' may send 0.01 requests/s (2 at once), and has sent as many"}'
    )
    # gRPC hears the same
    call = quoted.call("rated")
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "may send 0.01 requests/s (2 at once)" in call.details()
    trailers = dict(call.trailing_metadata())
    status_proto = Status.FromString(trailers["grpc-status-details-bin"])
    assert status_proto.code == 8
    retry = RetryInfo()
    assert status_proto.details[0].Unpack(retry)
    assert 90 <= retry.retry_delay.seconds <= 100
    assert 90_000 <= int(trailers["grpc-retry-pushback-ms"]) <= 100_000


def test_tritonclient_is_told_that_a_request_is_too_large(quoted: Quoted) -> None:
    assert quoted.infer("rows", rows=4).status == 200
    text = "5 rows in one request are more than the 4 rows that tenant 'rows' may send at once"
    answer = quoted.infer("rows", rows=5)
    assert answer.status == 429
    assert text in answer.error
    # trying again would not help
    assert "retry-after" not in answer.headers
    tensor = tritonclient.grpc.InferInput("X", [5, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((5, 1), np.float32))
    headers = {"authorization": f"Bearer {quoted.keys['rows']}"}
    with (
        tritonclient.grpc.InferenceServerClient(quoted.served.grpc) as client,
        pytest.raises(InferenceServerException, match=text) as raised,
    ):
        client.infer("puppet", [tensor], headers=headers)
    assert raised.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_a_new_limit_is_effective_within_a_second(quoted: Quoted) -> None:
    assert quoted.infer("changing").status == 200
    assert quoted.infer("changing").status == 429
    quoted.store.set_limits("changing", {"requests_per_s": 1e6})
    eventually(lambda: quoted.infer("changing").status == 200, "the new limit is not in force")


# ── whatever ends a request, it holds nothing any more ──────────────────────────────────────────────────────────────


@pytest.fixture
def held(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Parameters of a request that is held up until the test's end."""
    yield {"started": str(tmp_path / "started"), "wait_for": str(tmp_path / "open")}
    (tmp_path / "open").touch()


def begun(held: dict[str, str]) -> None:
    eventually(Path(held["started"]).exists, "the model got no request")


def is_full(quoted: Quoted) -> None:
    answer = quoted.infer("flying", "cached")
    assert answer.status == 429
    assert answer.error == "tenant 'flying' may have 1 requests in flight, and has as many"
    assert answer.headers["retry-after"] == "1"


def is_free(quoted: Quoted) -> None:
    def passes() -> bool:
        call = quoted.call("flying", "cached")
        return call.code() is grpc.StatusCode.OK

    eventually(passes, "an ended request holds its quota")


def test_an_answer(quoted: Quoted, held: dict[str, str]) -> None:
    call = quoted.call("flying", parameters=held)
    begun(held)
    is_full(quoted)
    Path(held["wait_for"]).touch()
    assert call.code() is grpc.StatusCode.OK
    is_free(quoted)


def test_an_answer_of_an_ensemble_counts_once(quoted: Quoted, held: dict[str, str]) -> None:
    # its step is a request too, which would be one too many
    assert quoted.call("flying", "outer", name="IN").code() is grpc.StatusCode.OK
    call = quoted.call("flying", "outer", name="IN", parameters=held)
    begun(held)
    is_full(quoted)
    call.cancel()
    is_free(quoted)


def test_a_cancelled_call(quoted: Quoted, held: dict[str, str]) -> None:
    call = quoted.call("flying", parameters=held)
    begun(held)
    is_full(quoted)
    call.cancel()
    is_free(quoted)


def test_a_deadline(quoted: Quoted, held: dict[str, str]) -> None:
    call = quoted.call("flying", timeout_s=0.3, parameters=held)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    is_free(quoted)


def test_a_client_that_is_gone(quoted: Quoted, held: dict[str, str]) -> None:
    body = json_request(1.0, parameters=held)
    headers = {"authorization": f"Bearer {quoted.keys['flying']}"}
    connection = quoted.served.start_infer("puppet", body, headers)
    begun(held)
    is_full(quoted)
    connection.close()
    is_free(quoted)


def test_errors_of_all_kinds(quoted: Quoted) -> None:
    for parameters in ({"error": "no"}, {"raise": "no"}, {"die": "yes"}):
        assert quoted.call("flying", parameters=parameters).code() is not grpc.StatusCode.OK
        is_free(quoted)
    # wrong before it was counted
    assert quoted.call("flying", raw=[b"123"]).code() is grpc.StatusCode.INVALID_ARGUMENT
    is_free(quoted)


def test_a_worker_that_is_killed(quoted: Quoted, held: dict[str, str]) -> None:
    call = quoted.call("flying", parameters=held)
    begun(held)
    (worker,) = quoted.served.workers("puppet")
    os.kill(worker, signal.SIGKILL)
    # it runs again, and holds what it held
    eventually(lambda: quoted.served.workers("puppet") not in ([], [worker]), "no new worker")
    is_full(quoted)
    Path(held["wait_for"]).touch()
    assert call.code() is grpc.StatusCode.OK
    is_free(quoted)


def test_a_queue_that_is_full(quoted: Quoted, held: dict[str, str]) -> None:
    """What the queue refuses was let pass by the quota before."""
    held_up = [quoted.call("few", "short", parameters=held)]
    begun(held)

    def full() -> bool:
        call = quoted.call("few", "short")
        try:
            error = call.exception(timeout=0.2)
        except grpc.FutureTimeoutError:
            # it is with the worker, or waits
            held_up.append(call)
            return False
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return True

    eventually(full, "the queue is not full")
    assert len(held_up) == 3
    for _ in range(3):
        # the fourth in flight each time
        assert quoted.call("few", "short").code() is grpc.StatusCode.UNAVAILABLE
    Path(held["wait_for"]).touch()
    assert [call.code() for call in held_up] == [grpc.StatusCode.OK] * 3


def test_requests_of_a_stream(quoted: Quoted, held: dict[str, str]) -> None:
    with bare_stream(quoted.channel, metadata=quoted.metadata("flying")) as stream:
        stream.send("a", array=ONE, parameters=held)
        begun(held)
        refused = quoted.refused("flying")
        stream.send("b", array=ONE)
        eventually(lambda: quoted.refused("flying") > refused, "the second one was not refused")
        Path(held["wait_for"]).touch()
        first, second = stream.next(), stream.next()
        assert first.infer_response.id == "a" and not first.error_message
        # a request of the stream is refused, and the stream goes on
        assert "may have 1 requests in flight" in second.error_message
        is_free(quoted)
        stream.send("c", array=ONE)
        assert stream.next().infer_response.id == "c"
    is_free(quoted)


def test_a_stream_of_responses_holds_its_place_to_the_last(
    quoted: Quoted, held: dict[str, str]
) -> None:
    told = {"wait_for": held["wait_for"], "count": 2}
    text = {"name": "TEXT", "datatype": "BYTES", "shape": (1,), "raw": [b"\x01\x00\x00\x00a"]}
    with bare_stream(quoted.channel, metadata=quoted.metadata("flying")) as stream:
        stream.send("a", "teller", parameters=told, **text)
        stream.next()
        is_full(quoted)
        Path(held["wait_for"]).touch()
        stream.next()
        is_free(quoted)


def test_a_stream_that_is_cancelled(quoted: Quoted, held: dict[str, str]) -> None:
    with bare_stream(quoted.channel, metadata=quoted.metadata("flying")) as stream:
        stream.send("a", array=ONE, parameters=held)
        begun(held)
        is_full(quoted)
    is_free(quoted)


def test_queued_bytes(quoted: Quoted) -> None:
    call = quoted.call("flying", array=np.ones((1, 400), np.float32))
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "are more than the 1000 bytes" in call.details()
    # trying again would not help
    assert "grpc-status-details-bin" not in dict(call.trailing_metadata())


def test_fair_shares_go_by_the_weights_of_the_store(quoted: Quoted, held: dict[str, str]) -> None:
    sent = [quoted.call("free", "short", parameters=held)]
    begun(held)

    def told() -> bool:
        path = "/v2/models/short/explain"
        queue = quoted.served.request("GET", path, headers=quoted.monitoring).json["queue"]
        lanes = [lane for level in queue["levels"] for lane in level["tenants"]]
        if not lanes:
            # the first one was given ahead to the busy worker, and the queue of one may have refused the next
            sent.append(quoted.call("weighted", "short"))
        return [(lane["tenant"], lane["weight"]) for lane in lanes] == [("weighted", 4)]

    eventually(told, "the weight is not in force")
    Path(held["wait_for"]).touch()
    for call in sent:
        call.exception(timeout=30)


# ── use ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_use_is_told_and_kept(quoted: Quoted) -> None:
    for _ in range(3):
        assert quoted.infer("free", rows=2).status == 200

    def counted() -> bool:
        page = quoted.metrics()
        return 'penstock_tenant_rows_total{tenant="free"}' in page and 'tenant="other"' in page

    eventually(counted, "no metrics of the tenant")

    def kept() -> bool:
        return any(u.model == "puppet" and u.rows >= 6 for u in quoted.store.usage("free"))

    eventually(kept, "use is not written")


@pytest.fixture
def puppet(tmp_path: Path) -> Path:
    """A folder of one model."""
    write_model(tmp_path / "models" / "puppet", "puppet", BATCHED + PUPPET)
    return tmp_path / "models"


def test_totals_of_a_day_survive_a_restart(puppet: Path, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.db"
    store = make_store(tenants)
    for statuses in ([200], [200, 429, 429]):
        server = Quoted(puppet, "grpcio", store=store, tenants=tenants)
        try:
            assert [server.infer("daily").status for _ in statuses] == statuses
            assert server.served.stop() == 0
        finally:
            server.close()
    assert sum(use.requests for use in store.usage("daily")) == 2
    store.close()


# ── replicas ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer(password="sesame")
    yield server
    server.close()


def test_two_servers_share_through_redis(redis: RedisServer, puppet: Path, tmp_path: Path) -> None:
    """One of each front. With a password, which stands in a file."""
    secret = tmp_path / "password"
    secret.write_text("sesame")
    secret.chmod(0o600)
    tenants = tmp_path / "tenants.db"
    store = make_store(tenants)
    store.create("both")
    store.set_limits("both", {"requests_per_s": 0.001, "burst_requests": 10})
    flags = (f"--quotas-redis-url={redis.url}", f"--quotas-redis-password=file:{secret}")
    servers: list[Quoted] = []
    try:
        servers += [Quoted(puppet, front, *flags, store=store, tenants=tenants) for front in FRONTS]
        passed = spend(servers)
        # of each server at most a chunk and one request more
        assert 10 <= passed <= 10 + 2 * 2
        redis.kill()
        # then each goes by the limits alone, of which it has had its part
        eventually(lambda: all("is away" in s.served.log for s in kicked(servers)), "not noticed")
        assert passed + spend(servers) <= 2 * 10
        redis.start()
        eventually(lambda: refuses(servers), "they do not share again")
        for server in servers:
            assert "sesame" not in server.served.log
    finally:
        for server in servers:
            server.close()
        store.close()


def kicked(servers: list[Quoted]) -> list[Quoted]:
    """Have them talk to Redis."""
    for server in servers:
        server.infer("both")
    return servers


def spend(servers: list[Quoted]) -> int:
    """Ask each in turn until all refuse for long; how many passed."""
    passed = refused = 0
    while refused < 20:
        for server in servers:
            status = server.infer("both").status
            passed += status == 200
            refused = 0 if status == 200 else refused + 1
    return passed


def refuses(servers: list[Quoted]) -> bool:
    return all("are shared through Redis" in s.served.log.rpartition("is away")[2] for s in servers)
