"""Fills in what a configuration leaves open from what the model itself says, and checks what it gives against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.backends.ragged import batch_input_names, scattered_names
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict, asks_decoupled
from penstock.padding_config import padding_of

AUTO_MAX_BATCH_SIZE: Final = 64
"""For models that take any batch size, where the configuration says nothing of it. Triton has 4, which is small."""

SCHEDULERS: Final = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")

BATCH_DIM: Final = -1


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """A tensor as the model declares it. `shape` includes the batch dimension, -1 is any size."""

    name: str
    data_type: str
    """Triton's spelling: TYPE_FP32 …"""
    shape: tuple[int, ...]
    optional: bool = False
    labels: str = ""
    """`label_filename`, for outputs."""
    shape_known: bool = True
    """False: the model may not say how many dimensions there are; the configuration's are believed."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs that a model declares."""

    inputs: Sequence[ModelTensor]
    outputs: Sequence[ModelTensor]

    @property
    def takes_batches(self) -> bool:
        """Whether the first dimension of every tensor is free."""
        tensors = (*self.inputs, *self.outputs)
        return all(t.shape_known and t.shape[:1] == (BATCH_DIM,) for t in tensors)


def has_scheduler(config: ConfigDict) -> bool:
    """Whether the configuration chose how requests are put together."""
    return any(config.get(key) is not None for key in SCHEDULERS)


def refuse_decoupled(config: ConfigDict, what: str) -> None:
    """For `what` gives each request one response. Raises LoadFailed."""
    if asks_decoupled(config):
        raise LoadFailed(
            f"model_transaction_policy.decoupled is true, but {what} gives each request one response; expected false"
        )


def says_nothing_of_batching(config: ConfigDict) -> bool:
    """Whether max_batch_size is left open: 0 is the default, and means no batching only beside explicit tensors."""
    return not (config.get("max_batch_size") or config.get("input") or config.get("output"))


def model_dims(tensor: Mapping[str, Any]) -> Sequence[int]:
    """A configured tensor's dims as the model sees them, without the batch dimension: `reshape` if there is one."""
    reshape = tensor.get("reshape")
    dims: Sequence[int] = tensor["dims"] if reshape is None else reshape.get("shape") or ()
    return dims


def complete(config: ConfigDict, signature: Signature) -> ConfigDict:
    """A copy of `config` with inputs, outputs, max_batch_size and the batcher filled in from `signature`.

    Raises LoadFailed as `with_tensors` does.
    """
    completed = {"max_batch_size": 0, **config}
    if says_nothing_of_batching(config) and signature.takes_batches:
        completed["max_batch_size"] = AUTO_MAX_BATCH_SIZE
        if not has_scheduler(config):
            completed["dynamic_batching"] = {}
    return with_tensors(completed, signature)


def with_tensors(config: ConfigDict, signature: Signature) -> ConfigDict:
    """A copy of `config` with inputs and outputs filled in, for the max_batch_size that it has.

    Raises LoadFailed that names the tensor, what was expected and what was found, where the two contradict.
    """
    batching = bool(config["max_batch_size"])
    return config | {
        "input": _tensors("input", config, signature.inputs, batching),
        "output": _tensors("output", config, signature.outputs, batching),
    }


def _tensors(
    kind: str, config: ConfigDict, declared: Sequence[ModelTensor], batching: bool
) -> list[dict[str, Any]]:
    given = config.get(kind) or ()
    if kind == "input":
        made = batch_input_names(config)
        _check_batch_inputs(config, {tensor.name: tensor for tensor in declared})
        declared = [tensor for tensor in declared if tensor.name not in made]
    if not given:
        return [_describe(kind, tensor, batching) for tensor in declared]
    by_name = {tensor.name: tensor for tensor in declared}
    names = [tensor["name"] for tensor in given]
    left_out: list[dict[str, Any]] = []
    if kind == "input":
        masks = [name for name in padding_of(config).masks if name not in names]
        left_out = [_describe(kind, t, batching) for t in declared if t.name in masks]
        _check_none_missing([*names, *masks], declared)
    of_all = scattered_names(config) if kind == "output" else frozenset()
    return [
        _merge(kind, t, by_name, batching, of_all=t["name"] in of_all) for t in given
    ] + left_out


def _check_batch_inputs(config: ConfigDict, declared: Mapping[str, ModelTensor]) -> None:
    for given in config.get("batch_input") or ():
        for name in given["target_name"]:
            tensor = declared.get(name)
            if tensor is None:
                raise LoadFailed(
                    f"batch_input makes {name!r}, which is no input of the model:"
                    f" expected one of {', '.join(declared)}"
                )
            if tensor.data_type != given["data_type"]:
                raise LoadFailed(
                    f"batch_input {name!r}: the model has {tensor.data_type}, the configuration"
                    f" {given['data_type']}"
                )
            rank = 2 if given.get("kind") == "BATCH_ITEM_SHAPE" else 1
            if tensor.shape_known and len(tensor.shape) != rank:
                raise LoadFailed(
                    f"batch_input {name!r}: the model has shape {list(tensor.shape)}, expected"
                    f" {rank} dimension{'s' * (rank > 1)}"
                )


def _check_none_missing(given: Sequence[str], declared: Sequence[ModelTensor]) -> None:
    for tensor in declared:
        if tensor.name not in given and not tensor.optional:
            raise LoadFailed(
                f"the model needs input {tensor.name!r}, which the configuration leaves out:"
                f" it has {', '.join(given)}"
            )


def _describe(kind: str, tensor: ModelTensor, batching: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": tensor.name,
        "data_type": tensor.data_type,
        "dims": list(_dims(kind, tensor, batching)),
    }
    if tensor.optional:
        described["optional"] = True
    if tensor.labels:
        described["label_filename"] = tensor.labels
    return described


def _merge(
    kind: str,
    given: Mapping[str, Any],
    declared: Mapping[str, ModelTensor],
    batching: bool,
    *,
    of_all: bool,
) -> dict[str, Any]:
    """`of_all`: an output that holds the elements of all requests, whatever its shape; `dims` are each request's."""
    name = given["name"]
    tensor = declared.get(name)
    if tensor is None:
        raise LoadFailed(
            f"the configuration has {kind} {name!r}, which the model doesn't:"
            f" expected one of {', '.join(declared)}"
        )
    data_type = given.get("data_type") or "TYPE_INVALID"
    if data_type not in ("TYPE_INVALID", tensor.data_type):
        raise LoadFailed(
            f"{kind} {name!r}: the model has {tensor.data_type}, the configuration {data_type}"
        )
    dims = given.get("dims") or ()
    if given.get("allow_ragged_batch") and batching:
        _check_ragged(tensor, dims)
    elif of_all:
        pass
    elif dims or given.get("reshape") is not None:
        _check_dims(kind, model_dims(given), tensor, batching)
    else:
        dims = _dims(kind, tensor, batching)
    return {**_extras(tensor, given), "data_type": tensor.data_type, "dims": list(dims)}


def _check_ragged(tensor: ModelTensor, dims: Sequence[int]) -> None:
    if tensor.shape_known and tensor.shape != (BATCH_DIM,):
        raise LoadFailed(
            f"input {tensor.name!r} has allow_ragged_batch, but the model has shape"
            f" {list(tensor.shape)}, expected [-1]: the elements of all requests side by side"
        )
    if not dims:
        raise LoadFailed(
            f"input {tensor.name!r} has allow_ragged_batch and no dims, which the model can't tell:"
            " expected those of a request"
        )


def _extras(tensor: ModelTensor, given: Mapping[str, Any]) -> dict[str, Any]:
    extras = dict(given)
    if tensor.labels and not given.get("label_filename"):
        extras["label_filename"] = tensor.labels
    if tensor.optional:
        extras["optional"] = True
    return extras


def _check_dims(kind: str, given: Sequence[int], tensor: ModelTensor, batching: bool) -> None:
    if not tensor.shape_known:
        return
    expected = _dims(kind, tensor, batching)
    fits = len(given) == len(expected) and all(
        free in (BATCH_DIM, size) for size, free in zip(given, expected, strict=True)
    )
    if not fits:
        without = " without its batch dimension" if batching else ""
        raise LoadFailed(
            f"{kind} {tensor.name!r}: the model has dims {list(expected)}{without},"
            f" the configuration {list(given)}"
        )


def _dims(kind: str, tensor: ModelTensor, batching: bool) -> tuple[int, ...]:
    if not batching:
        return tensor.shape
    if tensor.shape[:1] != (BATCH_DIM,):
        raise LoadFailed(
            f"{kind} {tensor.name!r}: max_batch_size is over 0, but the model has shape"
            f" {list(tensor.shape)}, expected a first dimension of any size for the batch"
        )
    return tensor.shape[1:]
