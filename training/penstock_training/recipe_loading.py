"""From a recipe's name to the recipe."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from penstock.config_errors import explained, no_such_setting
from penstock.errors import ConfigError, PenstockError
from penstock_training.config import TrainConfig
from penstock_training.config_sources import setting_in
from penstock_training.errors import RecipeError
from penstock_training.recipe import Recipe


def load_recipe(config: TrainConfig, source: Path) -> Recipe:
    """Raises RecipeError, ConfigError."""
    name = config.recipe.name
    place = setting_in(source, "recipe", "name")
    module, _, cls = name.rpartition(":") if ":" in name else (name, "", "")
    recipe = _class_of(_module(module, place), cls, place)
    return recipe(config, _options(recipe, config, source))


def _module(name: str, place: str) -> ModuleType:
    try:
        return _from_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except PenstockError:
        raise
    except Exception as error:
        raise RecipeError(f"{place}: {name} can't be imported: {told(error)}") from error


def _from_file(path: Path) -> ModuleType:
    name = f"penstock_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    # it may import what lies beside it, as a script does
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _class_of(module: ModuleType, name: str, place: str) -> type[Recipe]:
    found = {
        cls.__name__: cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Recipe) and cls.__module__ == module.__name__
    }
    names = ", ".join(found) or "none"
    if name and name not in found:
        raise RecipeError(f"{place}: {module.__name__} has no recipe {name}; it has {names}")
    if not name and len(found) != 1:
        raise RecipeError(
            f"{place}: expected MODULE:CLASS, as {module.__name__} has these recipes: {names}"
        )
    cls = found[name] if name else next(iter(found.values()))
    missing = [*sorted(cls.__abstractmethods__)]
    missing += [field for field in ("inputs", "outputs") if not hasattr(cls, field)]
    if missing:
        raise RecipeError(f"{place}: {cls.__name__} lacks {', '.join(missing)}")
    return cls


def _options(recipe: type[Recipe], config: TrainConfig, source: Path) -> Any:
    try:
        return recipe.Options.model_validate(dict(config.recipe.options))
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors(include_url=False)[0])
        location = [str(part) for part in first["loc"]]
        place = setting_in(source, "recipe", "options", *location)
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                no_such_setting(place, location[-1], recipe.Options.model_fields)
            ) from None
        raise ConfigError(explained(place, first)) from None


def told(error: BaseException) -> str:
    """What somebody else's code raised, and where: `ValueError: no such file (recipe.py, line 12)`."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    theirs = [f for f in frames if not f.filename.startswith((ours, "<frozen"))]
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
