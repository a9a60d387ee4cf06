"""Configurations: what a file says, what is set over it, and what is told of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock_training.config import TrainConfig, bound_values
from penstock_training.config_sources import line_of, load_config

GOOD = """\
# what a run needs at least, and some
[recipe]
name = "recipes/mine.py:Mine"

[recipe.options]
hidden = 32

[run]
folder = "runs/mine"

[training]
epochs = 3
batch_size = 64

[data.tables.train]
uri = "lake/train"

[data.tables.other]
uri = "s3://bucket/other"
columns = [
  "a",
  "b",
]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    return path


def test_paths_are_beside_the_file(file: Path) -> None:
    config = load_config(file)
    folder = file.parent
    assert config.run.folder == folder / "runs/mine"
    assert config.recipe.name == f"{folder}/recipes/mine.py:Mine"
    assert config.data.tables["train"].uri == f"{folder}/lake/train"
    assert config.data.tables["other"].uri == "s3://bucket/other"
    assert config.data.tables["other"].columns == ("a", "b")


def test_is_frozen(file: Path) -> None:
    config = load_config(file)
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 4


def test_values_are_set_over_the_file(file: Path) -> None:
    overrides = [
        "training.epochs=5",
        "optimizer.kind=sgd",
        "recipe.options.names=['x']",
        "run.ray_address=",
    ]
    config = load_config(file, overrides)
    assert config.training.epochs == 5
    assert config.optimizer.kind == "sgd"
    assert config.recipe.options == {"hidden": 32, "names": ["x"]}
    assert config.run.ray_address == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "epochs = 3",
            "epoch = 3",
            "mine.toml:12: training.epoch: there is no such setting; did you mean epochs?",
        ),
        (
            "epochs = 3",
            "epochs = 0",
            "mine.toml:12: training.epochs: expected a number greater than or equal to 1",
        ),
        (
            "epochs = 3",
            "epochs = 'x'",
            "mine.toml:12: training.epochs: expected a whole number (got 'x')",
        ),
        ("epochs = 3", "", "mine.toml:11: training.epochs: is needed, and missing"),
        (
            "[training]",
            "[trainig]",
            "mine.toml:11: trainig: there is no such setting; did you mean training?",
        ),
        ("[run]", "[runs]", "there is no such setting; did you mean run?"),
        ('uri = "lake/train"', "", "data.tables.train.uri: is needed, and missing"),
        ("epochs = 3", "epochs = ", "not TOML"),
        (
            "batch_size = 64",
            "batch_size = 64\nmicro_batch_size = 60",
            "a multiple of training.micro_batch_size (60)",
        ),
    ],
)
def test_says_what_is_wrong_and_where(file: Path, old: str, new: str, told: str) -> None:
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.epochs=no", "--set training.epochs: expected a whole number (got 'no')"),
        (
            "training.epoch=3",
            "--set training.epoch: there is no such setting; did you mean epochs?",
        ),
        ("training.epochs", "--set training.epochs: expected NAME=VALUE"),
        ("training.epochs.x=3", "--set training.epochs.x=3: epochs is no table"),
    ],
)
def test_says_which_override_is_wrong(file: Path, override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override])
    assert told in str(caught.value)


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("recipe",), 2),
        (("recipe", "options", "hidden"), 6),
        (("data", "tables", "other", "columns"), 20),
        (("data", "tables", "none"), None),
    ],
)
def test_lines(location: tuple[str, ...], line: int | None) -> None:
    assert line_of(GOOD, location) == line


def test_the_digest_is_of_what_the_result_depends_on(file: Path) -> None:
    config = load_config(file)
    assert (
        load_config(file, ["run.processes=2", "checkpoints.keep=5", "data.prefetch=3"]).digest()
        == config.digest()
    )
    assert load_config(file, ["optimizer.learning_rate=0.5"]).digest() != config.digest()
    names = dict(bound_values(config))
    assert names["recipe.options.hidden"] == 32 and "run.folder" not in names


def test_survives_json(file: Path) -> None:
    config = load_config(file)
    assert TrainConfig.model_validate(config.model_dump(mode="json", by_alias=True)) == config
