"""Which input of the configuration is which argument of a PyTorch model, and which output which of its results. Pure.

As in Triton: by the names of forward's arguments, or of a dict's keys; by `name__0`, `name__1` …; or in the order in
which the configuration has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from penstock.backends.completion import ModelTensor, Signature
from penstock.backends.torch_program import Part, Program
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict, known_datatypes

_INDEXED: Final = re.compile(r".*__(\d+)")


class Inputs:
    """Puts a batch's inputs into the order of the model's arguments."""

    def __init__(self, program: Program, names: Sequence[str], optional: Iterable[str]) -> None:
        """`names`: of the configuration. Raises LoadFailed where they are not the model's."""
        parts = program.inputs
        named = parts is not None and _are_named(parts, names)
        left_out = set(optional)
        self._dict = program.takes_dict
        self._may_miss = bool(left_out)
        self._keywords: tuple[str, ...] = ()
        if self._dict:
            self._order = tuple(names)
        elif parts is None:
            self._order = _in_order(names, len(names))
        elif named:
            self._order, self._keywords = _by_name(parts, names)
        else:
            places = [part for part in parts if not part.keyword]
            self._order = _in_order(names, len(places), least=_needed(parts))
        if left_out and not self._dict and not named:
            raise LoadFailed(
                f"input {min(left_out)!r} is optional, but the model's arguments are told by their order;"
                " expected the names of forward's arguments"
            )

    def __call__(self, tensors: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Positional and keyword arguments."""
        if self._dict:
            return (dict(tensors),), {}
        if self._may_miss:
            return self._without_missing(tensors)
        positional = [tensors[name] for name in self._order]
        if not self._keywords:
            return positional, {}
        return positional, {name: tensors[name] for name in self._keywords}

    def _without_missing(
        self, tensors: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        positional: list[Any] = []
        for name in self._order:
            if name not in tensors:
                break
            positional.append(tensors[name])
        rest = (*self._order[len(positional) :], *self._keywords)
        return positional, {name: tensors[name] for name in rest if name in tensors}


class Results:
    """Takes the outputs out of what a model returns."""

    def __init__(self, program: Program, names: Sequence[str]) -> None:
        """`names`: of the configuration. Raises LoadFailed where they can't be the model's."""
        self._names = tuple(names)
        self._indices = _indices(names)
        parts = program.outputs
        if parts is None:
            return
        if any(part.name for part in parts):
            if unknown := [n for n in names if n not in {part.name for part in parts}]:
                raise LoadFailed(
                    f"the model has no output {unknown[0]!r}: it returns a dict of"
                    f" {', '.join(part.name for part in parts)}"
                )
        elif self._indices is None and len(names) != len(parts):
            raise LoadFailed(
                f"the model returns {len(parts)} tensors, the configuration has"
                f" {len(names)} outputs: {', '.join(names)}"
            )
        elif self._indices is not None and max(self._indices) >= len(parts):
            raise LoadFailed(f"the model returns {len(parts)} tensors, but there is {names[-1]!r}")

    def __call__(self, returned: Any) -> dict[str, Any]:
        """Output name → what the model returned for it. Raises ModelFailed where it isn't there."""
        if isinstance(returned, Mapping):
            return self._of_mapping(returned)
        parts = returned if isinstance(returned, (tuple, list)) else (returned,)
        if self._indices is not None and max(self._indices) < len(parts):
            return {n: parts[i] for n, i in zip(self._names, self._indices, strict=True)}
        if len(parts) != len(self._names):
            raise ModelFailed(
                f"the model returned {_described(returned)}, expected {len(self._names)} tensors:"
                f" {', '.join(self._names)}"
            )
        return dict(zip(self._names, parts, strict=True))

    def _of_mapping(self, returned: Mapping[Any, Any]) -> dict[str, Any]:
        try:
            return {name: returned[name] for name in self._names}
        except KeyError as error:
            keys = ", ".join(map(str, returned))
            raise ModelFailed(
                f"the model returned a dict of {keys}, without output {error.args[0]!r}"
            ) from None


def declared(program: Program, config: ConfigDict) -> Signature:
    """What the model says of its inputs and outputs under the names that the configuration has for them; and the
    configuration's own word where it says nothing. Raises LoadFailed where neither does."""
    inputs = [*(config.get("input") or ()), *_made_inputs(config)]
    names = [tensor["name"] for tensor in inputs]
    if program.takes_dict and not names:
        raise LoadFailed(f"the model takes a dict of tensors: {_say('input')}")
    return Signature(
        _tensors("input", inputs, program.inputs, "INPUT"),
        _tensors("output", config.get("output") or (), program.outputs, "OUTPUT"),
    )


def _made_inputs(config: ConfigDict) -> list[dict[str, Any]]:
    """Those of the model that the server makes."""
    return [
        {"name": name, "data_type": given["data_type"], "dims": [-1]}
        for given in config.get("batch_input") or ()
        for name in given["target_name"]
    ]


def _tensors(
    kind: str, given: Sequence[Mapping[str, Any]], parts: Sequence[Part] | None, prefix: str
) -> list[ModelTensor]:
    if not given:
        if parts is None or any(not part.data_type for part in parts if not part.optional):
            raise LoadFailed(f"the model doesn't say what its {kind}s are: {_say(kind)}")
        known = [part for part in parts if part.data_type]
        return [_tensor(p, p.name or f"{prefix}__{i}", {}) for i, p in enumerate(known)]
    found = _matched(given, parts)
    tensors = [_tensor(part, t["name"], t) for t, part in zip(given, found, strict=True)]
    for tensor in tensors:
        if tensor.data_type in ("", "TYPE_INVALID"):
            raise LoadFailed(
                f"{kind} {tensor.name!r} has no data_type, and the model doesn't say it: expected one of"
                f" {', '.join(known_datatypes())}"
            )
    return tensors


def _matched(given: Sequence[Mapping[str, Any]], parts: Sequence[Part] | None) -> Sequence[Part]:
    """The model's part for each of the configuration's. Where they don't fit, `Inputs` and `Results` tell."""
    names = [tensor["name"] for tensor in given]
    if parts is None:
        return [Part()] * len(given)
    by_name = {part.name: part for part in parts if part.name}
    if any(name in by_name for name in names):
        return [by_name.get(name, Part()) for name in names]
    order = _indices(names) or range(len(names))
    return [parts[index] if index < len(parts) else Part() for index in order]


def _tensor(part: Part, name: str, given: Mapping[str, Any]) -> ModelTensor:
    data_type = part.data_type or given.get("data_type") or ""
    if part.shape is None:
        if given and not given.get("dims") and given.get("reshape") is None:
            raise LoadFailed(f"{name!r} has no dims, and the model doesn't say them")
        return ModelTensor(name, data_type, (), shape_known=False)
    return ModelTensor(name, data_type, part.shape)


def _say(kind: str) -> str:
    return f"expected {kind} in the configuration, each with name, data_type and dims"


def _by_name(
    parts: Sequence[Part], names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that are given by place, and those behind an argument that is left out, which need their names."""
    _check_none_missing(parts, names)
    given = tuple(part.name for part in parts if part.name in names)
    by_place = [part.name in names and not part.keyword for part in parts]
    first = by_place.index(False) if False in by_place else len(parts)
    return given[:first], given[first:]


def _are_named(parts: Sequence[Part], names: Sequence[str]) -> bool:
    """Whether the configuration has the model's own names. Raises LoadFailed where it has only some of them."""
    known = {part.name for part in parts if part.name}
    unknown = [name for name in names if name not in known]
    if unknown and len(unknown) < len(names):
        raise LoadFailed(
            f"the model has no input {unknown[0]!r}: expected one of {', '.join(sorted(known))}"
        )
    return not unknown


def _check_none_missing(parts: Sequence[Part], names: Sequence[str]) -> None:
    for part in parts:
        if part.name not in names and not part.optional:
            raise LoadFailed(
                f"the model needs input {part.name!r}, which the configuration leaves out:"
                f" it has {', '.join(names)}"
            )


def _needed(parts: Sequence[Part]) -> int:
    """How many arguments there have to be."""
    return max((i + 1 for i, part in enumerate(parts) if not part.optional), default=0)


def _in_order(names: Sequence[str], count: int, least: int | None = None) -> tuple[str, ...]:
    """The inputs by their numbers, or as they come. `least`: how many there have to be, where not all."""
    indices = _indices(names)
    if not (count if least is None else least) <= len(names) <= count:
        raise LoadFailed(
            f"the model takes {count} inputs, the configuration has {len(names)}: {', '.join(names)}"
        )
    if indices is None:
        return tuple(names)
    if sorted(indices) != list(range(len(names))):
        raise LoadFailed(
            f"the inputs {', '.join(names)} are numbered, but not from 0 to {len(names) - 1}"
        )
    return tuple(name for _, name in sorted(zip(indices, names, strict=True)))


def _indices(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers at the ends of `name__0`, `name__1` …; None: not all have one."""
    found = [_INDEXED.fullmatch(name) for name in names]
    return tuple(int(match[1]) for match in found if match) if all(found) and found else None


def _described(returned: Any) -> str:
    if isinstance(returned, (tuple, list)):
        return f"{len(returned)} values"
    return f"one {type(returned).__name__}"
