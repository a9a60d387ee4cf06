"""From training to traffic, all of it real: two training processes, an MLflow server, a signed version that the server
takes from its alias under load, a regression that the roll-out takes back, and a better version that it promotes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from mlflow import MlflowClient

from mlflow_server import MlflowServer
from penstock.types import Array
from served import Served
from supervised import eventually

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 150.0
BRISK_S, GENTLE_S = 0.0, 0.05
"""Between a client's answer and its next question."""
ALONE: Final = "run.processes=1"
"""Only the first version is trained by two processes: that takes thrice the time."""
QUICK: Final = (ALONE, "training.epochs=1")
LAX: Final = "register.gates.champion.worse_by={accuracy = 1}"
CLOSE: Final = "register.gates.champion.worse_by={accuracy = 0.05}"
"""After so few epochs chance decides which of two is the better one."""
CONFIG: Final = """
[recipe]
name = "penstock_training.recipes.digits:DigitsRecipe"

[run]
folder = "{folder}"
processes = 2

[training]
epochs = 6
batch_size = 64

[data.tables.digits]
uri = "{lake}"

[optimizer]
learning_rate = 4e-3

[schedule]
warmup = 0.1

[evaluation]
best = "accuracy"
every_epochs = 3

[tracking]
uri = "{uri}"
experiment = "{model}"

[register]
name = "{model}"
signing_key = "{key}"
"""
SERVER: Final = """
[registry]
uri = "{uri}"
poll_secs = 0.5
cache_folder = "{folder}/cache"

[[artifacts.trust]]
public_keys = ["{folder}/release.pub"]

[rollouts]
folder = "{folder}/rollouts"
steps = [20, 50, 100]
step_secs = 2
min_requests = 50
follow = {{ "{model}" = "@challenger" }}
"""


class Loop:
    """The data scientist's and the platform team's hands."""

    def __init__(self, folder: Path, mlflow: MlflowServer) -> None:
        self.folder = folder
        self.model = f"digits-{uuid.uuid4().hex[:8]}"
        self.registry = MlflowClient(mlflow.uri)
        self._mlflow = mlflow
        run(sys.executable, "-m", "penstock_training.cli", "table", "digits", str(folder / "lake"))
        run(sys.executable, "-m", "penstock.cli", "models", "keygen", "release", cwd=folder)

    def train(self, name: str, *settings: str) -> int:
        """Returns the version that it has become."""
        config = self.folder / f"{name}.toml"
        values = {
            "folder": self.folder / name,
            "lake": self.folder / "lake",
            "uri": self._mlflow.uri,
        }
        config.write_text(
            CONFIG.format(**values, model=self.model, key=self.folder / "release.key")
        )
        overrides = [argument for setting in settings for argument in ("--set", setting)]
        run(sys.executable, "-m", "penstock_training.cli", str(config), *overrides)
        (newest, *_) = self.registry.search_model_versions(
            f"name='{self.model}'", order_by=["version_number DESC"], max_results=1
        )
        return int(newest.version)

    def alias(self, alias: str) -> int:
        return int(self.registry.get_model_version_by_alias(self.model, alias).version)

    def status(self, version: int) -> str:
        """What the server has written of its roll-out."""
        return str(json.loads(self.tags(version).get("penstock.rollout", "{}")).get("status"))

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.registry.get_model_version(self.model, str(version)).tags)

    @contextmanager
    def served(self) -> Iterator[Served]:
        settings = SERVER.format(uri=self._mlflow.uri, model=self.model, folder=self.folder)
        (self.folder / "penstock.toml").write_text(settings)
        server = Served(Path(f"models:/{self.model}@champion"), "auto", cwd=self.folder)
        try:
            yield server.wait_ready()
        finally:
            server.close()


class Load:
    """Clients that never stop asking for the model, whichever version that is."""

    def __init__(self, server: Served, model: str, clients: int = 2) -> None:
        self._server = server
        self._model = model
        self._ended = threading.Event()
        held_out = np.load(ROOT / "model_repo" / "digits" / "samples" / "held_out.npz")
        self._images: Array = (held_out["IMAGE"].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
        self.answers: Counter[str] = Counter()
        """By version."""
        self.failures: list[str] = []
        self.pause_s = BRISK_S
        self._threads = ThreadPoolExecutor(clients)
        self._clients = [self._threads.submit(self._ask, number) for number in range(clients)]

    def _ask(self, number: int) -> None:
        client = grpc_client.InferenceServerClient(self._server.grpc)
        turn = 0
        while not self._ended.wait(self.pause_s):
            turn += 1
            image = self._images[turn % len(self._images)][None]
            tensor = grpc_client.InferInput("IMAGE", list(image.shape), "FP32")
            tensor.set_data_from_numpy(image)
            try:
                answer = client.infer(self._model, [tensor], request_id=f"{number}-{turn}")
            except Exception as error:  # noqa: BLE001 - whatever it is, a request has failed
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            assert answer is not None
            scores = answer.as_numpy("SCORES")
            if scores is None or not np.isfinite(scores).all():
                self.failures.append(f"{scores}")
            self.answers[answer.get_response().model_version] += 1
        client.close()

    @contextmanager
    def gently(self) -> Iterator[None]:
        """They go on asking, and leave most of the machine to a training."""
        self.pause_s = GENTLE_S
        try:
            yield
        finally:
            self.pause_s = BRISK_S

    def end(self) -> None:
        self._ended.set()
        for client in self._clients:
            client.result(PATIENCE_S)
        self._threads.shutdown()


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def penstock(server: Served, *arguments: str) -> Any:
    """What a command says of the running server, as JSON."""
    command = [sys.executable, "-m", "penstock.cli", *arguments, "--url", server.http, "--json"]
    return json.loads(run(*command))


@pytest.mark.timeout(900)
def test_from_training_to_traffic(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    loop = Loop(tmp_path, mlflow_server)
    first = loop.train("first")
    assert loop.alias("challenger") == first
    # the first one has nothing to be compared with: a person puts it in charge
    loop.registry.set_registered_model_alias(loop.model, "champion", str(first))
    with loop.served() as server:
        load = Load(server, loop.model)
        try:
            eventually(lambda: load.answers[str(first)] > 100, "no answers", PATIENCE_S)

            # it has learnt nothing, and its gates let it through
            with load.gently():
                bad = loop.train("bad", "optimizer.learning_rate=1e-9", *QUICK, LAX)
            assert loop.alias("challenger") == bad, loop.tags(bad)["penstock.gates"]
            eventually(lambda: loop.status(bad) == "rolled_back", "it stays", PATIENCE_S)
            saw_the_bad_one = load.answers[str(bad)]
            assert loop.alias("champion") == first

            with load.gently():
                good = loop.train("good", "training.seed=3", ALONE, CLOSE)
            assert loop.alias("challenger") == good, loop.tags(good)["penstock.gates"]
            eventually(lambda: loop.status(good) == "promoted", "it is not promoted", PATIENCE_S)
            assert loop.alias("champion") == good
            before = load.answers[str(good)]
            eventually(lambda: load.answers[str(good)] > before + 100, "no answers", PATIENCE_S)
        finally:
            load.end()
        assert load.failures == [], server.log
        assert load.answers[str(bad)] == saw_the_bad_one < load.answers.total() / 4
        check_lineage(loop, server, good)
        # it is not served any more, and what it was can be asked all the same
        of_the_bad_one = penstock(server, "models", "lineage", loop.model, str(bad))["registry"]
        assert json.loads(of_the_bad_one["tags"]["penstock.rollout"])["status"] == "rolled_back"


def check_lineage(loop: Loop, server: Served, version: int) -> None:
    """Every answer can be traced back to its run, and the data."""
    lineage = penstock(server, "models", "lineage", loop.model)
    registered = lineage["registry"]
    tags = loop.tags(version)
    assert lineage["version"] == str(version)
    assert lineage["digest"] == tags["penstock.model_digest"] == answered_digest(loop, server)
    assert lineage["release"]["signer"]
    assert (
        registered["run"]["run_id"]
        == loop.registry.get_model_version(loop.model, str(version)).run_id
    )
    assert registered["tags"]["penstock.data.version"].startswith("delta-0-")
    assert registered["tags"]["penstock.promoted.by"]
    assert "champion" in registered["aliases"]


def answered_digest(loop: Loop, server: Served) -> str:
    """Of the files that have given an answer, as the answer itself says."""
    image = {"name": "IMAGE", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.0] * 64}
    body = {"inputs": [image], "parameters": {"model_digest": True}}
    answer = server.infer(loop.model, body)
    return str(answer.json["parameters"]["model_digest"])
