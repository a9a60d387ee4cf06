"""From a name to a recipe, and what is told of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock_training.config_sources import load_config
from penstock_training.recipe_loading import load_recipe
from tiny_run import RECIPE

GOOD = """
from beside import NUMBER
from penstock_training.recipe import Recipe, Splits
from penstock.config_section import Section

class Options(Section):
    hidden: int = 4

class First(Recipe):
    Options = Options
    inputs = ("X",)
    outputs = ("Y",)
    number = NUMBER
    def model(self): ...
    def datasets(self, lake): ...
    def loss(self, outputs, batch): ...
    def example_input(self): ...
"""
SECOND = GOOD + "class Second(First): ...\n"
CONFIG = """\
[recipe]
name = "NAME"
options = { hidden = 8 }
[run]
folder = "run"
[training]
epochs = 1
batch_size = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "beside.py").write_text("NUMBER = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def load(folder: Path, name: str, config: str = CONFIG) -> object:
    source = folder / "mine.toml"
    source.write_text(config.replace("NAME", name))
    return load_recipe(load_config(source), source)


def test_a_file_beside_the_configuration(folder: Path) -> None:
    (folder / "one.py").write_text(GOOD)
    recipe = load(folder, "one.py")
    assert type(recipe).__name__ == "First"
    assert recipe.options.hidden == 8 and recipe.number == 3  # type: ignore[attr-defined]


def test_a_class_of_several_and_a_module(folder: Path) -> None:
    (folder / "several.py").write_text(SECOND)
    assert type(load(folder, "several.py:Second")).__name__ == "Second"
    assert type(load(folder, "several:First")).__name__ == "First"
    assert type(load(folder, str(RECIPE), CONFIG.replace("hidden", "rows"))).__name__ == "Corners"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.py", None, "mine.toml:2: recipe.name: "),
        ("none.py", None, "can't be imported: FileNotFoundError: there is no file "),
        (
            "no.such.module",
            None,
            "no.such.module can't be imported: ModuleNotFoundError: No module named 'no'",
        ),
        ("bad.py", "import nothing_of_that_name", "No module named 'nothing_of_that_name' ("),
        ("bad.py", "x = 1 / 0", "ZeroDivisionError: division by zero ("),
        ("bad.py", "def x(:", "invalid syntax ("),
        ("bad.py", "def x(:", "bad.py, line 1)"),
        (
            "bad.py",
            SECOND,
            "expected MODULE:CLASS, as penstock_recipe_bad has these recipes: First, Second",
        ),
        ("bad.py:Third", SECOND, "has no recipe Third; it has First, Second"),
        ("bad.py", "", "has these recipes: none"),
        (
            "bad.py",
            GOOD.replace("def loss", "def lose"),
            "mine.toml:2: recipe.name: First lacks loss",
        ),
        ("bad.py", GOOD.replace('    inputs = ("X",)', ""), "First lacks inputs"),
        (
            "bad.py",
            GOOD.replace("hidden", "hide"),
            "mine.toml:3: recipe.options.hidden: there is no such setting",
        ),
        (
            "bad.py",
            GOOD.replace("hidden: int", "hidden: bool"),
            "mine.toml:3: recipe.options.hidden: expected true or",
        ),
    ],
)
def test_says_what_is_wrong(folder: Path, name: str, text: str | None, told: str) -> None:
    if text is not None:
        (folder / "bad.py").write_text(text)
    with pytest.raises(PenstockError) as caught:
        load(folder, name)
    assert told in str(caught.value)
