"""What a run tells MLflow, over a real server: all of it, once, and without the training ever waiting for it."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_server import MlflowServer
from penstock.errors import ConfigError, Unavailable
from penstock_training.config import TrainConfig
from penstock_training.mlflow_link import connect
from penstock_training.mlflow_tracker import MlflowTracker, tracker_of
from penstock_training.system_metrics import SystemMetrics
from penstock_training.tracking import NoTracker
from supervised import eventually
from trained import config_of, experiment_of, facts_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's, whose experiment is its own."""
    found = tmp_path / f"run-{tmp_path.name}-{time.time_ns()}"
    found.mkdir()
    return found


@pytest.fixture
def uri(mlflow_server: MlflowServer) -> str:
    """The store that the server has too: the same runs, and quicker."""
    return mlflow_server.store_uri


@pytest.fixture
def client(uri: str) -> Any:
    return connect(uri)


@pytest.fixture
def stopped(mlflow_server: MlflowServer) -> Iterator[MlflowServer]:
    """It takes connections, and answers nothing."""
    mlflow_server.stop()
    yield mlflow_server
    mlflow_server.go_on()


def tracked(config: TrainConfig, **tracking: Any) -> TrainConfig:
    settings = config.tracking.model_copy(update=tracking)
    return config.model_copy(update={"tracking": settings})


def started(config: TrainConfig, resumed_from_step: int | None = None) -> MlflowTracker:
    tracker = MlflowTracker()
    tracker.start(config, facts_of(config.run.folder, resumed_from_step))
    return tracker


def runs_of(client: Any, folder: Path) -> list[Any]:
    experiment = client.get_experiment_by_name(experiment_of(folder))
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def history(client: Any, folder: Path, name: str) -> list[tuple[int, float]]:
    (run,) = runs_of(client, folder)
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


def artifacts(client: Any, run_id: str, path: str = "") -> set[str]:
    found = client.list_artifacts(run_id, path or None)
    return {each.path for each in found}


def test_a_run_is_noted_whole(mlflow_server: MlflowServer, folder: Path) -> None:
    client = connect(mlflow_server.uri)
    config = tracked(
        config_of(folder, mlflow_server.uri), tags={"team": "vision"}, run_name="first"
    )
    tracker = started(config)
    for step in range(1, 4):
        tracker.log_metrics(step, {"train/loss": 1 / step, "train/norm": float("nan")})
    checkpoint = folder / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    tracker.checkpoint(checkpoint, 3)
    tracker.finish("finished")

    (run,) = runs_of(client, folder)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    assert run.data.params["training.batch_size"] == "30"
    assert run.data.params["facts.world_size"] == "2"
    assert "secret" not in json.dumps(run.data.params), "URLs hold passwords"
    assert history(client, folder, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [step for step, _ in history(client, folder, "train/norm")] == [1, 2, 3]
    tags = run.data.tags
    assert tags["team"] == "vision"
    assert tags["penstock.config.digest"] == config.digest()
    assert tags["penstock.run.folder"] == str(folder)
    assert len(tags["penstock.git.revision"]) == 40
    assert tags["penstock.data.version"] == "7"
    assert tags["penstock.data.uri"] == "s3://me:[hidden]@lake/points"
    assert (tags["penstock.checkpoint"], tags["penstock.checkpoint.step"]) == (str(checkpoint), "3")
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("points", "7")
    assert used.dataset.source_type == "delta_table"
    assert json.loads(used.dataset.source)["version"] == "7"
    there = artifacts(client, run.info.run_id)
    assert there >= {"config.json", "environment", "starts"}
    assert artifacts(client, run.info.run_id, "environment") == {
        "environment/requirements.txt",
        "environment/hardware.json",
    }
    assert artifacts(client, run.info.run_id, "starts") == {"starts/from-step-0.json"}


def test_a_resumed_run_is_the_same_run(uri: str, client: Any, folder: Path) -> None:
    config = config_of(folder, uri)
    first = started(config)
    for step in (1, 2, 3):
        first.log_metrics(step, {"train/loss": 1 / step})
    first.finish("stopped")
    (run,) = runs_of(client, folder)
    assert run.info.status == "KILLED"

    changed = config.run.model_copy(update={"processes": 3})
    second = started(config.model_copy(update={"run": changed}), resumed_from_step=2)
    for step in (3, 4):
        second.log_metrics(step, {"train/loss": 1 / step})
    second.finish("finished")
    (run,) = runs_of(client, folder)
    assert run.info.status == "FINISHED"
    assert history(client, folder, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert run.data.params["run.processes"] == "0", "a parameter can't change"
    assert run.data.tags["penstock.changed.run.processes"] == "0 → 3"
    assert artifacts(client, run.info.run_id, "starts") == {
        "starts/from-step-0.json",
        "starts/from-step-2.json",
    }
    assert len(run.inputs.dataset_inputs) == 1


def test_a_run_whose_id_was_lost_is_found_again(uri: str, client: Any, folder: Path) -> None:
    config = config_of(folder, uri)
    started(config).finish("stopped")
    # killed when MLflow had made it, and before anybody could note its id
    path = folder / "tracking" / "run.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "run_id": ""}))
    started(config).finish("finished")
    assert [run.info.run_id for run in runs_of(client, folder)] == [known["run_id"]]


def test_a_registry_that_hangs_costs_the_training_nothing(
    stopped: MlflowServer,
    client: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    config = tracked(config_of(folder, stopped.uri), finish_secs=0.2)
    tracker = started(config)
    for step in range(500):
        tracker.log_metrics(step, {"train/loss": float(step)})
    with pytest.raises(Unavailable, match="can't be reached"):
        tracker.settled()
    with caplog.at_level(logging.WARNING):
        tracker.finish("finished")
    (warned,) = [r.getMessage() for r in caplog.records if "penstock-train register" in r.msg]
    assert f"is kept in {folder}/tracking" in warned

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    stopped.go_on()
    eventually(
        lambda: all(thread.name != "mlflow" for thread in threading.enumerate()),
        "it goes on trying when its process is as good as gone",
        30,
    )
    # whoever goes on, or registers it, sends what was left here
    started(config_of(folder, stopped.uri), resumed_from_step=30).finish("finished")
    (run,) = runs_of(client, folder)
    assert run.info.status == "FINISHED"
    assert len(history(client, folder, "train/loss")) == 500


def test_what_stayed_here_is_sent_by_the_next_process(uri: str, client: Any, folder: Path) -> None:
    away = tracked(config_of(folder, "http://127.0.0.1:9"), finish_secs=0)
    lost = started(away)
    lost.log_metrics(1, {"train/loss": 1.0})
    lost.finish("failed")
    (folder / "tracking" / "run.json").unlink(missing_ok=True)
    second = started(config_of(folder, uri), resumed_from_step=1)
    second.log_metrics(2, {"train/loss": 0.5})
    second.finish("finished")
    assert history(client, folder, "train/loss") == [(1, 1.0), (2, 0.5)]


def test_checkpoints_are_uploaded_where_that_is_wanted(uri: str, client: Any, folder: Path) -> None:
    config = tracked(config_of(folder, uri), checkpoints="upload")
    tracker = started(config)
    checkpoint = folder / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"1234")
    tracker.checkpoint(checkpoint, 3)
    # it may be gone before its turn comes
    (checkpoint / "weights").unlink()
    tracker.finish("finished")
    (run,) = runs_of(client, folder)
    assert artifacts(client, run.info.run_id, "checkpoints/step-3") == {
        "checkpoints/step-3/weights"
    }
    assert list((folder / "tracking" / "uploads").iterdir()) == []


def test_system_metrics_are_mlflows_own(uri: str, client: Any, folder: Path) -> None:
    config = tracked(config_of(folder, uri), system_metrics_secs=0.05)
    tracker = started(config)
    journal = folder / "tracking" / "metrics.jsonl"
    eventually(lambda: journal.exists() and journal.read_text().count("\n") > 2, "no samples")
    tracker.finish("finished")
    (run,) = runs_of(client, folder)
    names = {name for name in run.data.metrics if name.startswith("system/")}
    assert names >= {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
    steps = [step for step, _ in history(client, folder, "system/cpu_utilization_percentage")]
    assert steps == list(range(len(steps)))


def test_a_sampler_ends_with_one_more_sample() -> None:
    found: list[dict[str, float]] = []
    sampler = SystemMetrics(3600, lambda values: found.append(dict(values)))
    sampler.close()
    (values,) = found
    assert values["system/disk_usage_percentage"] > 0


def test_a_store_without_a_server_keeps_artifacts_beside_it(
    mlflow_server: MlflowServer, client: Any, folder: Path
) -> None:
    tracker = started(config_of(folder, mlflow_server.store_uri))
    tracker.log_metrics(1, {"train/loss": 1.0})
    tracker.finish("finished")
    (run,) = runs_of(client, folder)
    assert history(client, folder, "train/loss") == [(1, 1.0)]
    place = mlflow_server.folder / "artifacts" / experiment_of(folder) / run.info.run_id
    assert (place / "artifacts" / "config.json").is_file()


def test_what_mlflow_refuses_does_not_hold_up_the_rest(
    uri: str, client: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = started(config_of(folder, uri))
    tracker.log_metrics(1, {"no name of a metric: {}": 1.0})
    tracker.settled()
    tracker.log_metrics(2, {"train/loss": 1.0})
    tracker.finish("finished")
    assert history(client, folder, "train/loss") == [(2, 1.0)]
    assert any("refuses to note metrics" in record.getMessage() for record in caplog.records)


def test_a_run_is_told_of_code_as_it_was_when_it_was_trained(
    uri: str, client: Any, folder: Path
) -> None:
    config = config_of(folder, uri)
    started(config).finish("stopped")
    path = folder / "tracking" / "opening.json"
    then = json.loads(path.read_text())
    then["tags"]["penstock.git.revision"] = "0" * 40
    path.write_text(json.dumps(then))
    # the training is over: whoever opens the run again only registers it
    (folder / "registration.lock").touch()
    started(config, resumed_from_step=30).finish("finished")
    (run,) = runs_of(client, folder)
    assert run.data.tags["penstock.git.revision"] == "0" * 40


def test_which_tracker_a_configuration_asks_for(tmp_path: Path) -> None:
    assert isinstance(tracker_of(config_of(tmp_path, "")), NoTracker)
    assert isinstance(tracker_of(config_of(tmp_path, "sqlite:///x.db")), MlflowTracker)
    with pytest.raises(ConfigError, match=r"\[register\] needs tracking.uri"):
        tracker_of(config_of(tmp_path, "", name="m"))
    with pytest.raises(ConfigError, match=r"nokey\.pem: can't be read"):
        tracker_of(config_of(tmp_path, "sqlite:///x.db", name="m", signing_key="nokey.pem"))


def test_facts_of_restarts_have_files_of_their_own(tmp_path: Path) -> None:
    from penstock_training.run_facts import opening

    facts = replace(facts_of(tmp_path, resumed_from_step=20), restarts=2)
    found = opening(config_of(tmp_path, ""), facts)
    assert "starts/from-step-20-restart-2.json" in found.files
    assert "facts.restarts" not in found.parameters
