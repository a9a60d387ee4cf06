"""Models of a real MLflow server: served, followed, and not lost whatever goes away."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from mlflow_server import MlflowServer
from penstock.cli import main
from registered import Registered
from relay import Relay
from served import FRONTS, HttpAnswer, Served
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("registry")]

SECRET: Final = "webhooks are signed with it"
WEBHOOK: Final = "/v2/registry/webhook"
TAG: Final = "penstock.deployment.here"
IMPORT_S: Final = 90.0
"""MLflow takes seconds to import, on a busy machine many."""


class Bench:
    """A server that hears of changes by webhooks alone, and the registered model that it serves."""

    def __init__(self, front: str, folder: Path, mlflow_server: MlflowServer) -> None:
        self.model = Registered(mlflow_server)
        self.model.add(1, "champion")
        self.model.add(5, "challenger")
        name = self.model.name
        write_entry(folder / "models" / "entry", name)
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        self.audit = folder / "audit"
        self.served = Served(
            folder / "models",
            front,
            f"scaled=models:/{name}@champion,challenger",
            f"later=models:/{name}@later",
            "models:/nobody-knows-it@champion",
            f"--registry-uri={mlflow_server.uri}",
            f"--registry-cache-folder={folder / 'cache'}",
            "--registry-poll-secs=80000",
            f"--registry-webhook-secret=file:{secret}",
            "--registry-server-id=here",
            f"--audit-folder={self.audit}",
        )

    def tell(self, secret: str = SECRET) -> HttpAnswer:
        """What MLflow sends when an alias has changed."""
        body = b'{"entity": "registered_model_alias"}'
        return self.served.request("POST", WEBHOOK, body, sign(body, secret))

    def move(self, alias: str, version: int) -> None:
        self.model.point(alias, version)
        assert self.tell().status == 200

    def states(self, name: str) -> dict[str, str]:
        index = self.served.request("POST", "/v2/repository/index").json
        return {line["version"]: line["state"] for line in index if line["name"] == name}

    def reason(self, name: str) -> str:
        index = self.served.request("POST", "/v2/repository/index").json
        return next(str(line["reason"]) for line in index if line["name"] == name)


def write_entry(folder: Path, model: str) -> None:
    folder.mkdir(parents=True)
    (folder / "registry.toml").write_text(f'uri = "models:/{model}@champion"')
    (folder / "config.pbtxt").write_text(
        'backend: "python" max_batch_size: 2 version_policy { latest { num_versions: 1 } }'
        ' input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }'
        ' output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }'
    )


@pytest.fixture(scope="module", params=FRONTS)
def bench(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_server: MlflowServer,
) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path_factory.mktemp("registry"), mlflow_server)
    try:
        made.served.wait_ready(IMPORT_S)
        yield made
        assert made.served.stop() == 0, made.served.log
        # its last words
        assert json.loads(made.model.tags(1)[TAG])["state"] == "STOPPED"
    finally:
        made.served.close()


def first_version(served: Served) -> list[int]:
    """Workers of it."""
    return served.processes("penstock.workers.main", "scaled/1")


def factor(served: Served, model: str, version: str = "") -> float | None:
    """What the model multiplies by; None: it gives no answer."""
    where = f"/v2/models/{model}{f'/versions/{version}' if version else ''}/infer"
    body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}
    try:
        answer = served.request("POST", where, body)
    except (OSError, http.client.HTTPException):
        return None
    return float(answer.json["outputs"][0]["data"][0]) if answer.status == 200 else None


class Asking:
    """Asks for a model all the time, and remembers what came."""

    def __init__(self, served: Served, model: str) -> None:
        self.answers: list[float] = []
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(served, model))
        self._thread.start()

    def _run(self, served: Served, model: str) -> None:
        while not self._stop.is_set():
            body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}
            answer = served.infer(model, body)
            if answer.status == 200:
                self.answers.append(answer.json["outputs"][0]["data"][0])
            else:
                self.errors.append(answer.error)

    def end(self) -> list[float]:
        """The answers, in order. Fails if a request has failed."""
        self._stop.set()
        self._thread.join(30)
        assert self.errors == []
        return self.answers


def sign(body: bytes, secret: str = SECRET) -> dict[str, str]:
    at = str(int(time.time()))
    content = f"d1.{at}.".encode() + body
    signed = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest())
    return {
        "X-MLflow-Signature": f"v1,{signed.decode()}",
        "X-MLflow-Delivery-Id": "d1",
        "X-MLflow-Timestamp": at,
    }


def test_aliases_are_served_side_by_side(bench: Bench) -> None:
    addresses = {tritonclient.http: bench.served.http, tritonclient.grpc: bench.served.grpc}
    for protocol, address in addresses.items():
        library: Any = protocol
        given = library.InferInput("X", [1, 1], "FP32")
        given.set_data_from_numpy(np.ones((1, 1), np.float32))
        with library.InferenceServerClient(address) as client:
            answers = [client.infer("scaled", [given], v).as_numpy("Y") for v in ("", "1", "2")]
        assert [answer[0, 0] for answer in answers] == [1, 1, 5]
    shown = {each["name"]: each for each in bench.served.get("/v2/registry").json["models"]}
    scaled = shown["scaled"]
    aliases = {"champion": 1, "challenger": 2}
    assert (scaled["default"], scaled["aliases"], scaled["problem"]) == (1, aliases, "")
    assert scaled["versions"][0]["digest"].startswith("sha256:")
    assert scaled["versions"][0]["run_id"]
    assert bench.served.metrics()["penstock_registry_reachable"] == 1


def test_lineage_tells_run_and_registry(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    told = bench.served.get("/v2/models/scaled/versions/2/lineage").json
    (shown,) = [m for m in bench.served.get("/v2/registry").json["models"] if m["name"] == "scaled"]
    assert told["digest"] in [each["digest"] for each in shown["versions"]]
    registry = told["registry"]
    assert (registry["name"], registry["version"]) == (bench.model.name, 2)
    assert registry["aliases"] == ["challenger"]
    assert registry["run"]["params"] == {"factor": "5"}
    url = f"--url=http://{bench.served.http}"
    assert main(["models", "lineage", "scaled", url]) == 0
    lines = capsys.readouterr().out
    assert told["digest"] not in lines
    assert "run  times 1 " in lines and "aliases  champion" in lines
    assert "parameters (1)" in lines and "factor" not in lines
    assert main(["models", "lineage", "scaled", "--all", url]) == 0
    assert "factor  1" in capsys.readouterr().out


def test_an_entry_of_a_repository_has_its_configuration(bench: Bench) -> None:
    assert factor(bench.served, "entry") == 1
    config = bench.served.get("/v2/models/entry/config").json
    assert config["max_batch_size"] == 2


def test_what_is_not_there_is_said_and_comes_when_it_is(
    bench: Bench, mlflow_server: MlflowServer
) -> None:
    model = bench.model
    assert (
        bench.reason("nobody-knows-it")
        == f"no registered model 'nobody-knows-it' in {mlflow_server.uri}"
    )
    assert bench.reason("later") == f"registered model '{model.name}' has no alias 'later'"
    assert bench.served.infer("later", {"inputs": []}).status == 503
    # nobody asks for a day: a webhook does
    model.point("later", 2)
    refused = bench.tell("another secret")
    assert (refused.status, refused.error) == (401, "the webhook is not signed as it should be")
    assert bench.served.request("POST", WEBHOOK, b"{}").status == 401
    assert bench.tell().status == 200
    eventually(lambda: factor(bench.served, "later") == 5, "the webhook is not heard")


def test_an_alias_is_followed_under_load(bench: Bench) -> None:
    served, model = bench.served, bench.model
    asking = Asking(served, "scaled")
    bench.move("champion", model.add(3))
    eventually(lambda: factor(served, "scaled") == 3, "the alias is not followed")
    eventually(lambda: not first_version(served), "the version before is not unloaded")
    answers = asking.end()
    assert answers == sorted(answers)
    assert set(answers) == {1, 3}
    assert bench.states("scaled") == {"2": "READY", "3": "READY"}
    # a policy of its folder does not choose among what the registry has
    eventually(lambda: factor(served, "entry") == 3, "the entry does not follow")
    deployed = {"state": "READY", "share": 100.0, "healthy": True}
    eventually(
        lambda: deployed.items() <= json.loads(model.tags(3).get(TAG, "{}")).items(),
        "its deployment is not written",
    )
    log = "".join(path.read_text() for path in bench.audit.iterdir() if path.is_file())
    assert '"registry.fetch"' in log
    assert '"registry.alias"' in log


def test_a_version_that_can_t_be_loaded_leaves_the_one_before(bench: Bench) -> None:
    served, model = bench.served, bench.model
    before = factor(served, "scaled")
    bad = model.add(0, files={"model.py": "raise RuntimeError('no weights')"})
    bench.move("champion", bad)
    eventually(lambda: bench.states("scaled").get(str(bad)) == "UNAVAILABLE", "it is not tried")
    assert factor(served, "scaled") == before
    assert factor(served, "scaled", "2") == 5
    bench.move("champion", 1)
    eventually(lambda: factor(served, "scaled") == 1, "the next one does not come")
    eventually(lambda: bench.states("scaled") == {"1": "READY", "2": "READY"}, "they stay")


def test_an_agent_or_a_gateway_that_crashes_is_no_outage(bench: Bench) -> None:
    served = bench.served
    agent = "penstock.registry.agent"
    (first,) = served.processes(agent)
    os.kill(first, signal.SIGKILL)
    assert factor(served, "scaled") == 1
    eventually(lambda: served.processes(agent) not in ([], [first]), "no agent", IMPORT_S)
    bench.model.point("champion", 3)
    eventually(
        lambda: bench.tell().status == 200 and factor(served, "scaled") == 3,
        "another agent does not follow",
        IMPORT_S,
    )
    eventually(lambda: not first_version(served), "the version before is not unloaded")
    workers = set(served.workers("scaled"))
    os.kill(served.gateway, signal.SIGKILL)
    eventually(lambda: factor(served, "scaled") == 3, "no gateway")
    assert set(served.workers("scaled")) == workers, served.log[-6000:]
    assert factor(served, "scaled", "2") == 5
    bench.move("champion", 1)
    eventually(lambda: factor(served, "scaled") == 1, "another gateway does not follow")


def test_without_the_registry_what_was_fetched_is_served(
    serve: Callable[..., Served], mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    models = [Registered(mlflow_server) for _ in range(2)]
    for model in models:
        model.add(1, "champion")
    sound, damaged = (model.name for model in models)
    (tmp_path / "models").mkdir()
    relay = Relay(mlflow_server.port)

    def start(front: str) -> Served:
        return serve(
            tmp_path / "models",
            front,
            *(f"models:/{model.name}@champion" for model in models),
            f"--registry-uri=http://127.0.0.1:{relay.port}",
            f"--registry-cache-folder={tmp_path / 'cache'}",
            "--registry-poll-secs=0.3",
            "--registry-timeout-secs=2",
        ).wait_ready(IMPORT_S)

    try:
        served = start("envoy")
        asking = Asking(served, sound)
        relay.cut()
        eventually(lambda: served.metrics()["penstock_registry_reachable"] == 0, "not noticed")
        assert set(asking.end()) == {1}
        assert served.stop() == 0, served.log
        # the same file is two models': one of them gets another one
        (record,) = (tmp_path / "cache" / "versions").rglob(f"{damaged}/1.json")
        record.write_text(record.read_text().replace('"size":', '"size":1'))
        again = start("grpcio")
        assert factor(again, sound) == 1
        line = next(
            each
            for each in again.request("POST", "/v2/repository/index").json
            if each["name"] == damaged
        )
        assert line["state"] == "UNAVAILABLE"
        assert "the registry can't be asked" in line["reason"]
        relay.mend()
        eventually(lambda: factor(again, damaged) == 1, "it is not fetched again", IMPORT_S)
        models[0].add(2, "champion")
        eventually(lambda: factor(again, sound) == 2, "the registry is not followed again")
        assert again.stop() == 0, again.log
    finally:
        relay.close()
