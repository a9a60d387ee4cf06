"""Imports a model's Python file, and tells of an exception in it where in the model's own code it arose."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from penstock.backends.base import LoadSpec
from penstock.backends.isolation import one_line
from penstock.errors import LoadFailed

_logger = logging.getLogger(__name__)


def import_model(spec: LoadSpec, path: Path) -> ModuleType:
    """Import the file as a module of a package of its own, so that relative imports find what lies beside it.

    As in Triton, the version's and the model's folder are put at the end of `sys.path`, and stay: a model may import
    at any time. Raises LoadFailed with type, message and line of what the file raised.
    """
    path = path.absolute()
    for folder in (str(path.parent), str(spec.model_dir.absolute())):
        if folder not in sys.path:
            sys.path.append(folder)
    package = "penstock_model_" + re.sub(r"\W", "_", str(path.parent))
    name = f"{package}.{path.stem}"
    sys.modules[package] = _package(package, path.parent)
    module_spec = spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise LoadFailed(f"{path} can't be imported: expected a file that ends in .py")
    module = module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise load_failed(error, spec.model_dir, f"importing {path.name}") from error
    return module


def load_failed(error: Exception, model_dir: Path, doing: str) -> LoadFailed:
    """The LoadFailed to raise for an exception in the model's code; its traceback goes to the log.

    A LoadFailed of the model's own says all there is to say, and is raised as it is.
    """
    if isinstance(error, LoadFailed):
        return error
    _logger.error("%s failed", doing, exc_info=error)
    where = where_in_model(error, model_dir)
    return LoadFailed(f"{doing} failed: {one_line(error)}{f' ({where})' if where else ''}")


def where_in_model(error: BaseException, model_dir: Path) -> str:
    """`1/model.py:12`: the deepest line of the model's own code in the traceback, empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        places = [(frame.filename, frame.lineno) for frame in frames]
    for filename, line in places:
        path = Path(filename)
        if path.is_relative_to(model_dir.absolute()):
            return f"{path.relative_to(model_dir.absolute())}:{line}"
    return ""


def _package(name: str, folder: Path) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    return package
