"""Gates that ask for what no run of the recipe counts are refused before it is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import trained
from penstock.errors import ConfigError
from penstock_training.config_sources import load_config
from penstock_training.gate_names import check_gates
from penstock_training.launch import taken_up
from penstock_training.rank import train
from penstock_training.recipe import Recipe
from penstock_training.register_config import CLASSIFIER_METRICS, GateSettings
from penstock_training.run_folder import RunFolder

NOWHERE = Path("plane.toml")


class NoClassifier(trained.PlaneRecipe):
    """The same network, whose outputs are no probabilities."""

    class_names: tuple[str, ...] = ()


class NothingCounted(NoClassifier):
    """And nobody counts how good it is."""

    served_metrics = Recipe.served_metrics


def checked(gates: dict[str, Any], recipe: type[trained.PlaneRecipe] = trained.PlaneRecipe) -> None:
    made = recipe(trained.config_of(Path("unused"), ""), None)
    check_gates(GateSettings.model_validate(gates), made, made.datasets(), NOWHERE)


@pytest.mark.parametrize(
    "gates",
    [
        {},
        {"minimum": {"accuracy": 0.9, "left_right": 0.5}, "minimum_recall": 0.5},
        {"maximum": dict.fromkeys(CLASSIFIER_METRICS, 1.0)},
        {"champion": {"worse_by": {"left_right": 0.1}}},
        {"lower_is_better": ["loss", "left_right"]},
    ],
)
def test_good_ones(gates: dict[str, Any]) -> None:
    checked(gates)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        (
            {"minimum": {"acuracy": 0.9}},
            "register.gates.minimum.acuracy: 'acuracy' is no metric of this run; did you mean accuracy?",
        ),
        ({"maximum": {"left_rihgt": 0.9}}, "maximum.left_rihgt: .*; did you mean left_right?"),
        (
            {"champion": {"worse_by": {"speed": 0.9}}},
            "champion.worse_by.speed: 'speed' is no metric of this run; "
            "there are: accuracy, brier, ece, left_right, log_loss, macro_f1$",
        ),
        ({"lower_is_better": ["loss", "bier"]}, "lower_is_better: 'bier' .* did you mean brier?"),
    ],
)
def test_misspelt_ones(gates: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        checked(gates)


def test_what_only_classifiers_have() -> None:
    checked({"minimum": {"left_right": 0.5}}, NoClassifier)
    with pytest.raises(
        ConfigError, match=r"'accuracy' is no metric of this run; there are: left_right$"
    ):
        checked({"minimum": {"accuracy": 0.5}}, NoClassifier)
    with pytest.raises(ConfigError, match="there are: none: the recipe has no class_names, and no"):
        checked({"minimum": {"left_right": 0.5}}, NothingCounted)
    with pytest.raises(ConfigError, match="minimum_recall: only classifiers have a recall"):
        checked({"minimum_recall": 0.5}, NoClassifier)


def test_nothing_is_trained_before(tmp_path: Path) -> None:
    path = tmp_path / "plane.toml"
    path.write_text(
        f'[recipe]\nname = "{trained.__file__}:PlaneRecipe"\n[run]\nfolder = "run"\ndevice = "cpu"\n'
        '[training]\nepochs = 1\nbatch_size = 50\n[tracking]\nuri = "http://127.0.0.1:9"\n'
        '[register]\nname = "plane"\n[register.gates]\nminimum = { acuracy = 0.9 }\n'
    )
    config = load_config(path)
    folder = RunFolder(config.run.folder)
    folder.path.mkdir()
    folder.begin(taken_up(config, path, folder, resume=False))
    with pytest.raises(
        ConfigError, match=r"plane.toml:14: register.gates.minimum.acuracy: .* did you"
    ):
        train(folder, lambda: False, sys.stderr)
    assert not folder.metrics.exists()
    assert folder.checkpoints.newest() is None
