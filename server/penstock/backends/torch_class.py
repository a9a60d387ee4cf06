"""A state dict, and the class in `model.py` that it is for.

The class is the only subclass of `torch.nn.Module` that the file defines, or the one called `Model`, or the one that
the parameter `model_class` names. It is made by `Class()`, or `Class(parameters=…)` where its constructor has an
argument of that name: the configuration's parameters, as a dict of strings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Final

import torch

from penstock.backends.base import LoadSpec
from penstock.backends.mlflow_flavors import module as package
from penstock.backends.model_module import import_model, load_failed
from penstock.backends.parameters import string_parameters
from penstock.backends.torch_files import SOURCE
from penstock.backends.torch_program import Part, Program, plain
from penstock.errors import LoadFailed

USUAL_CLASS: Final = "Model"
PARAMETERS: Final = "parameters"
_SHOWN: Final = 3
_DICT: Final = re.compile(r"(typing\.)?([Dd]ict|Mapping)\[str, (torch\.)?Tensor\]")


def load_class(weights: Path, spec: LoadSpec, name: str, device: torch.device) -> Program:
    """The module with its weights. Raises LoadFailed."""
    source = weights.parent / SOURCE
    found = _class_of(import_model(spec, source), source, name)
    try:
        takes = PARAMETERS in inspect.signature(found).parameters
        made = found(**{PARAMETERS: string_parameters(spec.config)} if takes else {})
    except Exception as error:
        raise load_failed(error, spec.model_dir, f"making {found.__name__} of {SOURCE}") from error
    _fill(made, _read(weights), weights, found.__name__)
    arguments = list(inspect.signature(made.forward).parameters.values())
    return Program(
        plain(made.to(device).eval()),
        _parts(arguments),
        takes_dict=len(arguments) == 1 and _is_dict(arguments[0]),
        module=made,
    )


def _class_of(source: ModuleType, path: Path, name: str) -> type[torch.nn.Module]:
    own = {
        value.__name__: value
        for value in vars(source).values()
        if isinstance(value, type)
        and issubclass(value, torch.nn.Module)
        and value.__module__ == source.__name__
    }
    wanted = name or (USUAL_CLASS if USUAL_CLASS in own else "")
    if wanted in own:
        return own[wanted]
    if len(own) == 1 and not name:
        return next(iter(own.values()))
    expected = (
        f"a class {name!r} (parameter model_class)"
        if name
        else f"one subclass of torch.nn.Module, one called {USUAL_CLASS}, or its name in the parameter model_class"
    )
    raise LoadFailed(f"{path}: expected {expected}; found {', '.join(sorted(own)) or 'none'}")


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    """The weights. Of a pickle torch reads only tensors and plain containers: anything else in it is an error."""
    if path.suffix == ".safetensors":
        return package("safetensors.torch", "safetensors").load_file(path)  # type: ignore[no-any-return]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise LoadFailed(
            f"{path} holds more than tensors, or is damaged: expected what torch.save(model.state_dict(), …) writes"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in state.values()
    ):
        raise LoadFailed(
            f"{path} holds {type(state).__name__}, expected a state dict: tensors by name"
        )
    return state


def _fill(made: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path, name: str) -> None:
    wanted = made.state_dict()
    problems = [
        _named("lacks", [key for key in wanted if key not in state]),
        _named("has", [key for key in state if key not in wanted]),
        _named(
            "has other shapes of", [k for k in wanted if _shape_differs(wanted[k], state.get(k))]
        ),
    ]
    if found := ", ".join(filter(None, problems)):
        raise LoadFailed(f"{path} is no state dict of {name}: it {found}")
    made.load_state_dict(state)


def _shape_differs(wanted: Any, given: Any) -> bool:
    return given is not None and wanted.shape != given.shape


def _named(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{what} {', '.join(keys[:_SHOWN])}{more}"


def _parts(arguments: Sequence[inspect.Parameter]) -> Sequence[Part] | None:
    """Of `forward`; None where it takes any number."""
    if any(argument.kind is argument.VAR_POSITIONAL for argument in arguments):
        return None
    return [
        Part(
            argument.name,
            optional=argument.default is not argument.empty,
            keyword=argument.kind is argument.KEYWORD_ONLY,
        )
        for argument in arguments
        if argument.kind is not argument.VAR_KEYWORD
    ]


def _is_dict(argument: inspect.Parameter) -> bool:
    """By its annotation, which is a text where annotations are not evaluated."""
    annotation = argument.annotation
    text = annotation if isinstance(annotation, str) else str(annotation)
    return _DICT.fullmatch(text.replace("collections.abc.", "")) is not None
