"""`penstock check`, with models that are loaded for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ensemble_configs import ensemble, step, tensor
from ensemble_models import write_ensemble
from mlflow_models import write_mlmodel
from penstock.cli import main
from served_models import XY, write_add_sub, write_model

pytestmark = pytest.mark.extension("check")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One healthy model, one with a warning, one that can't be read, one that can't be loaded."""
    folder = tmp_path / "models"
    write_add_sub(folder / "add_sub")
    write_model(folder / "idle", "mirror", f"dynamic_batching {{ }}\n{XY}", (1, 2))
    write_model(folder / "wrong", "mirror", f"max_batch_size: -3\n{XY}")
    write_model(folder / "broken", "mirror", XY)
    (folder / "broken" / "1" / "model.py").write_text("raise RuntimeError('no weights')\n")
    return folder


def run(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = run(*arguments, "-o", "json")
    return code, json.loads(capsys.readouterr().out)


def test_everything_at_a_glance(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(repository) == 1
    lines = capsys.readouterr().out.splitlines()
    config = repository / "idle" / "config.pbtxt"
    assert lines == [
        "add_sub  ok      onnxruntime  version 1  no batches  1 instance",
        "broken   error   python       version 1  no batches  1 instance",
        f"    error: {repository}/broken/1: version 1 can't be loaded:"
        " importing model.py failed: RuntimeError: no weights (1/model.py:1)",
        "idle     warning python       version 2 of 2  no batches  1 instance",
        f"    warning: {config}:2: dynamic_batching has no effect: max_batch_size is 0, so requests run alone",
        "wrong    error   python       version 1  1 instance",
        f"    error: {repository}/wrong/config.pbtxt:2: max_batch_size is -3;"
        " expected 0 (no batch dimension) or more",
        "2 of 4 models can be served, 2 errors, 1 warning",
    ]


def test_one_model_in_detail(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(repository, "add_sub") == 0
    shown = capsys.readouterr().out
    assert "from the model's files" in shown
    assert [line.split() for line in shown.splitlines() if "input[1].dims" in line] == [
        ["input[1].dims", "[4]", "from", "the", "model's", "files"]
    ]
    assert "idle" not in shown


def test_each_value_and_its_source_as_json(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_MAX_QUEUE_REQUESTS", "7")
    (Path.cwd() / "penstock.toml").write_text("max_queue_secs = 3")
    code, report = as_json(capsys, repository, "idle", "add_sub")
    assert (code, report["errors"], report["warnings"]) == (0, 0, 1)
    add_sub, idle = report["models"]
    assert (add_sub["status"], add_sub["findings"]) == ("ok", [])
    assert (idle["status"], idle["present"]) == ("warning", [1, 2])
    assert idle["versions"] == [{"version": 2, "state": "loaded"}]
    assert idle["findings"][0]["line"] == 2
    values = {value["key"]: (value["value"], value["source"]) for value in idle["config"]}
    assert values["backend"] == ("python", "config.pbtxt:1")
    assert values["input[0].dims"] == ([-1], "config.pbtxt:4")
    assert values["max_batch_size"] == (0, "default")
    values = {value["key"]: (value["value"], value["source"]) for value in add_sub["config"]}
    assert values["input[1].name"] == ("INPUT1", "the model's files")
    settings = {value["key"]: (value["value"], value["source"]) for value in report["settings"]}
    assert settings["max_queue_requests"] == (7, "PENSTOCK_MAX_QUEUE_REQUESTS")
    assert settings["max_queue_secs"] == (3, "penstock.toml: max_queue_secs")
    assert settings["quarantine_secs"][1] == "default"


def test_what_runs_otherwise_than_asked_for_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # no machine has so many GPUs, and there is no plan of the other one
    write_model(
        tmp_path / "models" / "auto", "mirror", f"{XY}\ninstance_group [ {{ gpus: [ 99 ] }} ]"
    )
    write_model(tmp_path / "models" / "makeshift", "makeshift", None)
    code, report = as_json(capsys, tmp_path / "models", "--strict")
    assert code == 1
    auto, makeshift = report["models"]
    assert (auto["status"], makeshift["status"]) == ("warning", "warning")
    (told,) = auto["findings"]
    assert told["text"].startswith("version 1 does not run as asked for: runs on the CPU: ")
    assert told["file"].endswith("auto/config.pbtxt") and told["line"]
    (told,) = makeshift["findings"]
    assert "there is no plan of it, so NumPy runs it" in told["text"]


def test_errors_of_parameters_name_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those too that only loading finds, which knows no lines."""
    folder = tmp_path / "models"
    lines = {
        "threads": parameter("intra_op_thread_count", "x"),
        "image": parameter("image.INPUT0.resize", "crop"),
        "bucket": parameter("padding.INPUT0.buckets", "8, 16"),
        "gpu": "instance_group { kind: KIND_GPU }",
    }
    for name, line in lines.items():
        write_add_sub(folder / name)
        config = folder / name / "config.pbtxt"
        given = config.read_text() if config.exists() else 'backend: "onnxruntime"\n'
        config.write_text(f"{given}\n# what is wrong\n{line}\n")
    code, report = as_json(capsys, folder)
    assert code == 1
    for model in report["models"]:
        (found,) = model["findings"]
        text = Path(found["file"]).read_text().splitlines()
        assert text[found["line"] - 1] == lines[model["name"]], found


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def test_warnings_count_when_they_shall(repository: Path) -> None:
    assert run(repository, "idle", "--no-load") == 0
    assert run(repository, "idle", "--no-load", "--strict") == 1
    assert run(repository, "add_sub", "--no-load", "--strict") == 0


def test_without_loading(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = as_json(capsys, repository, "broken", "add_sub", "--no-load")
    assert (code, report["errors"]) == (0, 0)
    assert [m["versions"][0]["state"] for m in report["models"]] == ["not tried", "not tried"]
    assert run(repository, "--no-load", "--verbose") == 1
    assert "from config.pbtxt:" in capsys.readouterr().out


def test_a_terminal_is_told_nothing_by_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "models" / "a\x1b[31m\x9bb", "mirror", 'name: "[/] [red]"\n')
    assert run(tmp_path / "models", "--no-load", "-v") == 1
    out = capsys.readouterr().out
    assert "a�[31m�b" in out
    assert "[/] [red]" in out
    assert not {"\x1b", "\x9b"} & set(out)


def test_a_worker_that_dies_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "models" / "m", "mirror", XY)
    (tmp_path / "models" / "m" / "1" / "model.py").write_text("import os; os._exit(3)\n")
    code, report = as_json(capsys, tmp_path / "models")
    assert code == 1
    (found,) = report["models"][0]["findings"]
    assert "version 1 can't be loaded: the worker process ended" in found["text"]


def write_entry(path: Path, text: str) -> None:
    (path / "m").mkdir(parents=True)
    (path / "m" / "registry.toml").write_text(text)


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda path: None, 2, "there is no such folder"),
        (lambda path: path.touch(), 2, "is a file; expected a folder of models"),
        (lambda path: path.mkdir(), 1, "holds no models; expected a folder for each model"),
        (
            lambda path: write_entry(path, 'uri = "models:/m@champion"'),
            1,
            "holds no models of its own: m come from a registry",
        ),
        (
            lambda path: write_entry(path, "uri = 1"),
            2,
            "m/registry.toml: uri: expected a reference",
        ),
        (
            lambda path: write_model(path, "mirror", XY),
            2,
            "is a model's own folder; expected the folder that it lies in",
        ),
    ],
)
def test_what_is_no_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, code: int, text: str
) -> None:
    make(tmp_path / "models")
    assert run(tmp_path / "models") == code
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nobody",), "no model 'nobody' in"),
        (("--output", "xml"), "xml"),
        (("--config", "none.toml"), "none.toml: can't be read"),
        (("--loud",), "--loud"),
    ],
)
def test_wrong_usage(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    assert run(repository, *arguments) == 2
    assert text in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--no-load" in capsys.readouterr().out


@pytest.mark.extension("ensemble")
def test_ensembles_are_checked_against_their_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    write_model(folder / "floats", "mirror", XY)
    write_model(folder / "broken", "mirror", XY)
    (folder / "broken" / "1" / "model.py").write_text("raise RuntimeError('no weights')\n")
    floats = {"input": [tensor("IN", dims=[-1])], "output": [tensor("OUT", dims=[-1])]}
    no_batches = {"max_batch_size": 0}
    for name, model, more in (
        ("good", "floats", floats),
        ("outer", "good", floats),
        ("unfit", "floats", {**floats, "input": [tensor("IN", "TYPE_INT8", [-1])]}),
        ("lost", "absent", floats),
        ("on_broken", "broken", floats),
        ("round", "about", floats),
        ("about", "round", floats),
    ):
        names = "IN=IN", "OUT=OUT"
        if model in ("floats", "broken", "absent"):
            names = "X=IN", "Y=OUT"
        write_ensemble(folder, ensemble(step(model, *names), name=name, **{**no_batches, **more}))
    code, report = as_json(capsys, folder)
    assert code == 1
    problems = {m["name"]: [f["text"] for f in m["findings"]] for m in report["models"]}
    assert (problems["good"], problems["outer"], problems["floats"]) == ([], [], [])
    expected = {
        "unfit": "tensor 'IN' is TYPE_INT8 as input 'IN' of the ensemble, but input 'X' of"
        " step 0 ('floats') expects TYPE_FP32",
        "lost": "step 0 ('absent'): there is no such model that could be loaded",
        "on_broken": "step 0 ('broken'): its model can't be loaded",
        "round": "the models round → about → round need each other, in a circle",
        "about": "the models about → round → about need each other, in a circle",
    }
    for name, text in expected.items():
        assert problems[name] == [f"version 1 can't be loaded: {text}"]
    # a name alone checks what it needs too
    code, report = as_json(capsys, folder, "outer")
    assert (code, [m["name"] for m in report["models"]]) == (0, ["outer"])
    (outer,) = report["models"]
    assert (outer["backend"], outer["findings"]) == ("ensemble", [])


def test_the_repository_of_the_settings(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = repository.parent / "others"
    write_model(other / "second", "mirror", XY)
    assert run() == 2
    assert "no model repository was given: penstock check FOLDER" in capsys.readouterr().err
    Path("penstock.toml").write_text(f'model_repository = ["{repository}", "{other}"]\n')
    code, report = as_json(capsys, "--no-load")
    assert code == 1
    assert [model["name"] for model in report["models"]] == [
        *("add_sub", "broken", "idle", "wrong", "second"),
    ]
    assert report["repository"] == f"{repository}, {other}"
    write_model(other / "idle", "mirror", XY)
    assert run("--no-load") == 2
    assert "model 'idle' is in " in capsys.readouterr().err


@pytest.mark.extension("mlflow")
def test_models_that_mlflow_has_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which backend, what differs from the requirements, misspelt parameters, misplaced files."""
    folder = tmp_path / "models"
    flavors = {"sklearn": {"pickled_model": "model.skops"}}
    file = write_mlmodel(folder / "fine", flavors)
    # names that are other backends' are MLflow's own here
    (file.parent / "model.py").touch()
    (file.parent / "requirements.txt").write_text("numpy==0.1\n???\n")
    text = 'parameters { key: "mlflow_flavour" value { string_value: "sklearn" } }'
    (folder / "fine" / "config.pbtxt").write_text(text)
    (folder / "fine" / "MLmodel").touch()
    write_mlmodel(folder / "wrong", {"spark": {}})
    code, report = as_json(capsys, folder, "--no-load")
    models = {model["name"]: model for model in report["models"]}
    assert code == 1
    assert models["fine"]["backend"] == "mlflow"
    told = [each["text"] for each in models["fine"]["findings"]]
    assert len(told) == 4, told
    assert any("the model needs numpy==0.1 (" in each for each in told)
    assert any("requirements.txt:2: '???' is no requirement" in each for each in told)
    assert any("is not known; did you mean 'mlflow_flavor'?" in each for each in told)
    assert any("MLmodel is never read here; expected in a version's" in each for each in told)
    (wrong,) = models["wrong"]["findings"]
    assert "no flavour that can be served: it has spark" in wrong["text"]
