"""From a trained model to a version: whole, signed as servers verify it, judged, and there once however often the
process that makes it is killed."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from torch import nn

from mlflow_server import MlflowServer
from penstock.cli import main as penstock
from penstock.errors import Unavailable
from penstock.model_digest import folder_digest
from penstock_training.config import TrainConfig
from penstock_training.errors import RegistrationError
from penstock_training.export import run, session
from penstock_training.finish import finish_run
from penstock_training.mlflow_link import connect
from penstock_training.mlflow_tracker import MlflowTracker
from penstock_training.register import Registered
from penstock_training.registry import Registry
from trained import bad_model, config_of, facts_of, good_model, trained


@dataclass(frozen=True)
class Keys:
    private: Path
    public: Path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "release.key", folder / "release.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return Keys(private, public)


class Bench:
    """Runs that end in versions of one model."""

    def __init__(self, uri: str, folder: Path, exports: dict[str, Path]) -> None:
        self.uri = uri
        self.folder = folder
        self.name = f"plane-{time.time_ns()}"
        self.client: Any = connect(uri)
        self._exports = exports
        """The exporter takes seconds, and is tested elsewhere."""

    def config(self, run: str, **register: Any) -> TrainConfig:
        folder = self.folder / run
        folder.mkdir(exist_ok=True)
        return config_of(folder, self.uri, **{"name": self.name, **register})

    def finish(
        self,
        run: str,
        model: Callable[[], nn.Module] = good_model,
        *,
        status: bool = True,
        **register: Any,
    ) -> Registered:
        config = self.config(run, **register)
        exported = config.run.folder / "registration" / "model.onnx"
        known = self._exports.get(model.__name__)
        if known is not None and not exported.exists():
            exported.parent.mkdir(exist_ok=True)
            shutil.copyfile(known, exported)
        tracker = MlflowTracker()
        tracker.start(config, facts_of(config.run.folder))
        try:
            found = finish_run(trained(config, tracker, model()))
        finally:
            tracker.finish("finished" if status else "failed")
            if known is None and exported.exists():
                kept = self.folder.parent / f"{model.__name__}.onnx"
                self._exports[model.__name__] = Path(shutil.copyfile(exported, kept))
        assert found is not None
        return found

    def versions(self) -> list[int]:
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(int(each.version) for each in found)

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.client.get_model_version(self.name, str(version)).tags)

    def aliases(self) -> dict[str, int]:
        model = self.client.get_registered_model(self.name)
        return {alias: int(version) for alias, version in model.aliases.items()}

    def view(self, version: int, folder: Path, name: str = "") -> Path:
        """The folder as a server's registry lays it out."""
        model_dir = folder / (name or self.name)
        run_id = self.client.get_model_version(self.name, str(version)).run_id
        registry = Registry(self.client, self.uri, self.name, run_id)
        registry.fetch_version(version, model_dir / str(version))
        return model_dir


@pytest.fixture(scope="module")
def exports() -> dict[str, Path]:
    return {}


@pytest.fixture
def bench(mlflow_server: MlflowServer, tmp_path: Path, exports: dict[str, Path]) -> Iterator[Bench]:
    yield Bench(mlflow_server.store_uri, tmp_path, exports)


def test_a_good_model_becomes_a_signed_version(
    mlflow_server: MlflowServer,
    tmp_path: Path,
    exports: dict[str, Path],
    keys: Keys,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = Bench(mlflow_server.uri, tmp_path, exports)
    found = bench.finish(
        "first",
        signing_key=keys.private,
        description="the first one",
        tags={"team": "vision"},
        gates={"minimum": {"accuracy": 0.9, "left_right": 0.9}, "maximum": {"ece": 0.1}},
    )
    assert (found.version, found.alias, found.verdict.summary) == (1, "challenger", "passed")
    assert bench.versions() == [1]
    assert bench.aliases() == {"challenger": 1}

    view = bench.view(1, tmp_path / "view")
    files = {path.name for path in (view / "1").iterdir()}
    assert files >= {"MLmodel", "model.onnx", "model.sig", "release.json"}
    assert penstock(["models", "verify", str(view), "--public-key", str(keys.public)]) == 0
    assert f"verified {bench.name}/1, serial " in capsys.readouterr().out
    assert folder_digest(view / "1") == found.digest

    tags = bench.tags(1)
    assert tags["penstock.gates"] == "passed"
    assert tags["penstock.model_digest"] == found.digest
    assert tags["penstock.data.uri"] == "s3://me:[hidden]@lake/points"
    assert tags["penstock.data.version"] == "7"
    assert len(tags["penstock.git.revision"]) == 40
    assert tags["penstock.git.dirty"] in ("true", "false")
    assert tags["penstock.config.digest"] == bench.config("first").digest()
    assert tags["penstock.signed.by"] == found.signed_by
    assert float(tags["penstock.onnx.max_error"]) < 1e-5
    assert tags["team"] == "vision"
    version = bench.client.get_model_version(bench.name, "1")
    assert version.description == "the first one"

    proto = onnx.load(view / "1" / "model.onnx")
    said = {each.key: each.value for each in proto.metadata_props}
    assert said["penstock.run.id"] == version.run_id
    point = {"POINT": np.array([[0.0, 3.0]], np.float32)}
    outputs = run(session(view / "1" / "model.onnx"), point)
    assert outputs["PROBABILITY"].argmax() == 2
    assert "class_names" in (view / "1" / "MLmodel").read_text()

    logged = bench.client.get_run(version.run_id)
    assert tags["penstock.report"] == f"runs:/{version.run_id}/report/report.html"
    assert logged.data.metrics["test/accuracy"] > 0.9
    assert logged.data.metrics["test/onnx_max_error"] < 1e-5
    assert logged.info.status == "FINISHED"
    report = (tmp_path / "first" / "report.html").read_text()
    assert f"{bench.name}, version 1" in report
    assert "all gates passed" in report
    there = bench.client.list_artifacts(version.run_id, "report")
    assert [each.path for each in there] == ["report/report.html"]
    (model,) = logged.outputs.model_outputs
    assert model.step == 30


def test_a_bad_model_is_registered_with_the_reason_and_gets_no_alias(bench: Bench) -> None:
    found = bench.finish("bad", bad_model, gates={"minimum": {"accuracy": 0.9}})
    assert found.alias == ""
    assert bench.versions() == [1]
    assert bench.aliases() == {}
    assert bench.tags(1)["penstock.gates"].startswith("failed: accuracy 0.")
    assert bench.tags(1)["penstock.signed.by"].startswith("nobody")
    assert "1 of 2 gates failed" in (bench.folder / "bad" / "report.html").read_text()


def test_the_champion_is_run_on_the_same_rows(bench: Bench) -> None:
    bench.finish("first")
    bench.client.set_registered_model_alias(bench.name, "champion", "1")
    worse = bench.finish("worse", bad_model)
    assert worse.version == 2
    assert "the champion (version 1) has 0.9" in worse.verdict.summary
    assert bench.aliases() == {"champion": 1, "challenger": 1}, "the better one stays"
    report = (bench.folder / "worse" / "report.html").read_text()
    assert "version 1, the champion" in report

    equal = bench.finish("equal")
    assert (equal.verdict.summary, equal.alias) == ("passed", "challenger")
    better = bench.finish("better", gates={"champion": {"worse_by": {"log_loss": -0.1}}})
    assert not better.verdict.passed, "it was to be better by 0.1, and is the same"


def test_a_champion_that_is_not_what_was_registered_judges_nobody(bench: Bench) -> None:
    bench.finish("first")
    bench.client.set_registered_model_alias(bench.name, "champion", "1")
    bench.client.set_model_version_tag(bench.name, "1", "penstock.model_digest", "sha256:0")
    found = bench.finish("second")
    assert "its files are not those that were registered as sha256:0" in found.verdict.summary
    assert bench.aliases()["challenger"] == 1


def test_a_run_that_was_judged_by_other_gates_is_judged_anew(bench: Bench) -> None:
    assert bench.finish("first", gates={"minimum": {"accuracy": 1.0}}).alias == ""
    assert bench.finish("first", gates={"minimum": {"accuracy": 0.9}}).version == 1
    assert bench.aliases() == {"challenger": 1}
    assert bench.finish("first", gates={"minimum": {"accuracy": 1.0}}).version == 1
    assert bench.aliases() == {}
    assert bench.versions() == [1]


def test_an_export_that_is_another_model_is_not_registered(bench: Bench) -> None:
    bench.finish("first", bad_model)
    other = bench.folder / "other" / "registration"
    other.mkdir(parents=True)
    # as if the exporter had made another model of it
    shutil.copyfile(bench.folder / "first" / "registration" / "model.onnx", other / "model.onnx")
    with pytest.raises(RegistrationError, match=r"'PROBABILITY' of the ONNX file differs .* by 1;"):
        bench.finish("other", good_model, status=False)
    assert bench.versions() == [1]
    report = (bench.folder / "other" / "report.html").read_text()
    assert "difference of ONNX and torch" in report


class Killed(BaseException):
    """The process ends here."""


CALLS = (
    "create_logged_model",
    "log_outputs",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "set_registered_model_alias",
    "log_artifact",
)
"""All that changes something in MLflow."""


class KilledAfter:
    """A client whose process is killed after so many of these calls: after none of them, before it begins."""

    def __init__(self, client: Any, calls: int) -> None:
        self._client = client
        self.left = calls

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in CALLS:
            return call

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return call(*args, **kwargs)

        return counted


def test_killed_between_any_two_steps_there_is_one_version(
    bench: Bench, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"signing_key": keys.private, "gates": {"minimum_recall": 0.5}}
    bench.finish("warm", **settings)
    number = 0
    while True:
        bench.name = f"plane-{time.time_ns()}"
        killer = KilledAfter(bench.client, number)
        with monkeypatch.context() as patched:
            patched.setattr("penstock_training.mlflow_run.MlflowRun.client", killer)
            with contextlib.suppress(Killed):
                bench.finish(f"run-{number}", **settings)
        found = bench.finish(f"run-{number}", **settings)
        assert bench.versions() == [found.version] == [1]
        assert bench.aliases() == {"challenger": 1}
        assert bench.tags(1)["penstock.gates"] == "passed"
        if killer.left > 0:
            break
        number += 1
    assert number > len(CALLS), "there were as many steps to be killed at"
    view = bench.view(1, tmp_path / "view")
    assert penstock(["models", "verify", str(view), "--public-key", str(keys.public)]) == 0


def test_where_the_files_of_a_registration_are_lost_those_of_the_registry_count(
    bench: Bench, keys: Keys
) -> None:
    settings: dict[str, Any] = {"signing_key": keys.private}
    first = bench.finish("first", **settings)
    serial = json.loads((bench.view(1, bench.folder / "one") / "1" / "release.json").read_text())
    shutil.rmtree(bench.folder / "first" / "registration")
    again = bench.finish("first", **settings)
    assert (again.version, again.digest) == (1, first.digest)
    view = bench.view(1, bench.folder / "two") / "1"
    assert json.loads((view / "release.json").read_text()) == serial, "it is not signed anew"


def test_what_was_swapped_in_the_registry_is_not_signed(bench: Bench, keys: Keys) -> None:
    first = bench.finish("first", signing_key=keys.private)
    (model,) = bench.client.get_run(
        bench.client.get_model_version(bench.name, "1").run_id
    ).outputs.model_outputs
    place = Path(
        bench.client.get_logged_model(model.model_id).artifact_location.removeprefix("file://")
    )
    (place / "requirements.txt").write_text("evil\n")
    with pytest.raises(RegistrationError, match="the registry gives version 1 out as sha256:"):
        bench.finish("first", signing_key=keys.private, status=False)
    # nobody vouches for what lies there: it is made anew from the trained model
    shutil.rmtree(bench.folder / "first" / "registration")
    again = bench.finish("first", signing_key=keys.private)
    assert again.version == first.version
    assert "evil" not in (place / "requirements.txt").read_text()


def test_a_served_name_of_its_own_is_what_is_signed(
    bench: Bench, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.finish("first", signing_key=keys.private, serve_as="digits")
    other = bench.view(1, bench.folder / "as-registered")
    assert penstock(["models", "verify", str(other), "--public-key", str(keys.public)]) == 1
    assert "WrongModel" in capsys.readouterr().err
    view = bench.view(1, bench.folder / "as-served", "digits")
    assert penstock(["models", "verify", str(view), "--public-key", str(keys.public)]) == 0


def test_a_registry_that_is_away_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    config = config_of(folder, "http://127.0.0.1:9", name="m")
    tracking = config.tracking.model_copy(update={"finish_secs": 0.2})
    config = config.model_copy(update={"tracking": tracking})
    tracker = MlflowTracker()
    tracker.start(config, facts_of(folder))
    with pytest.raises(Unavailable, match=rf"penstock-train register {folder}"):
        finish_run(trained(config, tracker))
    tracker.finish("failed")


def test_a_run_without_a_registration_has_a_report(tmp_path: Path) -> None:
    from penstock_training.tracking import NoTracker

    folder = tmp_path / "run"
    folder.mkdir()
    config = config_of(folder, "")
    assert finish_run(trained(config, NoTracker())) is None
    assert "not registered" in (folder / "report.html").read_text()
