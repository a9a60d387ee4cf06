"""`penstock-train register`: what a registry that was away has left to do."""

import json
import sys
from pathlib import Path

import pytest

import trained
from mlflow_server import MlflowServer
from penstock.errors import Unavailable
from penstock_training.cli import EXIT_FAILED, EXIT_USAGE, main
from penstock_training.config_sources import load_config
from penstock_training.launch import taken_up
from penstock_training.mlflow_link import connect
from penstock_training.rank import train
from penstock_training.run_folder import RunFolder

CONFIG = """\
[recipe]
name = "{recipe}:PlaneRecipe"
[run]
folder = "run"
device = "cpu"
[training]
epochs = 20
batch_size = 50
[optimizer]
learning_rate = 0.1
[tracking]
uri = "{uri}"
experiment = "{name}"
system_metrics_secs = 0
finish_secs = {patience}
[register]
name = "{name}"
[register.gates]
minimum = {{ accuracy = {accuracy} }}
"""


def written(
    folder: Path, uri: str, *, patience: float = 20, accuracy: float = 0.9, epochs: int = 20
) -> Path:
    path = folder / "plane.toml"
    name = f"again-{folder.stat().st_ino}"
    text = CONFIG.format(
        recipe=trained.__file__, uri=uri, name=name, patience=patience, accuracy=accuracy
    )
    path.write_text(text.replace("epochs = 20", f"epochs = {epochs}"))
    return path


def began(path: Path) -> RunFolder:
    config = load_config(path)
    folder = RunFolder(config.run.folder)
    folder.path.mkdir(exist_ok=True)
    folder.begin(taken_up(config, path, folder, resume=False))
    return folder


def test_a_registry_that_was_away_gets_the_version_later(
    mlflow_server: MlflowServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = began(written(tmp_path, "http://127.0.0.1:9", patience=0.2))
    with pytest.raises(Unavailable, match=f"penstock-train register {folder.path}") as failed:
        train(folder, lambda: False, sys.stderr)
    # why is told once, and in few words
    told = f"{caplog.text}{failed.value}{capsys.readouterr().err}"
    assert told.count("refused") == 1, told
    assert "until it is back (connection refused)" in told
    assert "HTTPConnectionPool" not in told
    curve = folder.metrics.read_text()

    uri = mlflow_server.store_uri
    # --uri is stronger than what the configuration says
    path = written(tmp_path, "http://127.0.0.1:9")
    assert main(["register", str(folder.path), "--config", str(path), "--uri", uri]) == 0
    said = capsys.readouterr().out
    assert f" in {uri}, version 1, not signed: passed; it is @challenger now" in said
    name = load_config(path).tracking.experiment
    client = connect(uri)
    version = client.get_model_version_by_alias(name, "challenger")
    assert version.run_id is not None
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(version.run_id, "train/loss")
    noted = [json.loads(line) for line in curve.splitlines()]
    losses = [point["train/loss"] for point in noted if "train/loss" in point]
    assert [metric.value for metric in history] == losses, "all of the training's own"
    assert folder.metrics.read_text() == curve
    outcome = folder.outcome()
    assert outcome is not None
    assert outcome.status == "finished"

    # by the run's id, and with other gates
    path = written(tmp_path, uri, accuracy=1.0)
    given = ["register", version.run_id, "--config", str(path)]
    assert main(given) == 0
    assert "version 1, not signed: failed: accuracy 0.9" in capsys.readouterr().out
    assert client.get_registered_model(name).aliases == {}


def test_what_can_not_be_registered(
    mlflow_server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> tuple[int, str]:
        code = main(["register", *arguments])
        return code, capsys.readouterr().err

    uri = mlflow_server.store_uri
    assert error(str(tmp_path)) == (
        EXIT_USAGE,
        f"penstock-train: {tmp_path}: no folder of a run that has come to a checkpoint\n",
    )
    code, text = error("0123")
    assert (code, "give --uri or --config" in text) == (EXIT_USAGE, True)
    code, text = error("0123", "--uri", uri)
    assert (code, "the registry refuses to find the run" in text) == (EXIT_FAILED, True)

    path = written(tmp_path, uri)
    folder = began(path)
    # it stops after its first checkpoint
    train(folder, lambda: folder.checkpoints.newest() is not None, sys.stderr)
    code, text = error(str(folder.path))
    assert code == EXIT_USAGE
    assert "and is not over: --resume goes on with it" in text


def test_another_configuration_is_another_run(
    mlflow_server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = mlflow_server.store_uri
    folder = began(written(tmp_path, uri, epochs=2))
    train(folder, lambda: False, sys.stderr)
    path = written(tmp_path, uri, epochs=3)
    assert main(["register", str(folder.path), "--config", str(path)]) == EXIT_USAGE
    assert "only [tracking] and [register] may differ" in capsys.readouterr().err
