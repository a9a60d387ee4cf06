"""What can be wrong in the parts of a configuration that let requests of different shapes share a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from penstock.model_config import ANY_SIZE, ConfigDict, Tensor, known_datatypes
from penstock.padding_config import (
    PREFIX,
    CutOutput,
    PaddedInput,
    Padding,
    dimension_of,
    read_padding,
)
from penstock.repository.uneven_rules import fill_bits

BATCH_TYPES: Final = ("TYPE_INT32", "TYPE_FP32")

Problem = tuple[str, str]
"""Path of a key, and what is wrong there."""
Tensors = Mapping[str, Mapping[str, Any]]


def uneven_problems(config: ConfigDict, *, batching_known: bool) -> Iterator[Problem]:
    """What is wrong in a configuration with all its defaults; inputs and outputs may still be left to the model."""
    inputs, outputs = _named(config["input"]), _named(config["output"])
    padding, wrong = read_padding(config)
    for key, text in wrong:
        yield f"parameters[{key!r}]", text
    if batching_known and config["max_batch_size"] <= 0:
        yield from _without_batches(config, padding)
    for index, tensor in enumerate(config["input"]):
        if tensor["allow_ragged_batch"]:
            yield from _ragged(f"input[{index}]", tensor, config)
    for index, given in enumerate(config["batch_input"]):
        yield from _batch_input(f"batch_input[{index}]", given, inputs)
    yield from _made_twice(config, padding)
    for index, given in enumerate(config["batch_output"]):
        yield from _batch_output(f"batch_output[{index}]", given, inputs, outputs)
    if not wrong:
        yield from _padding(config, padding, inputs, outputs)
    yield from _beside_others(config, padding)


def incomplete_uneven(config: ConfigDict) -> Iterator[Problem]:
    """What is named and not there, in a configuration that the model's files completed."""
    inputs, outputs = config["input"], config["output"]
    padding, _ = read_padding(config)
    for given in padding.inputs:
        yield from _unknown(_key(given.name, "buckets"), "an input", given.name, inputs)
        if given.mask:
            yield from _unknown(_key(given.name, "mask"), "an input", given.mask, inputs)
    for cut in padding.outputs:
        yield from _unknown(_key(cut.name, "cut_to"), "an output", cut.name, outputs)


# ── ragged batches ──────────────────────────────────────────────────────────────────────────────────────────────────


def _ragged(path: str, tensor: Mapping[str, Any], config: ConfigDict) -> Iterator[Problem]:
    if "sequence_batching" in config:
        text = "is not supported beside sequence_batching; expected false"
        yield f"{path}.allow_ragged_batch", text
    if "reshape" in tensor:
        yield f"{path}.reshape", "is given with allow_ragged_batch; expected only one of them"


def _batch_input(path: str, given: Mapping[str, Any], inputs: Tensors) -> Iterator[Problem]:
    yield from _source(path, given, inputs)
    if given["data_type"] not in BATCH_TYPES:
        text = f"is {given['data_type']}; expected TYPE_INT32 or TYPE_FP32"
        yield f"{path}.data_type", text
    if not given["target_name"]:
        yield f"{path}.target_name", "is not given; expected the name of the model's input"
    for number, name in enumerate(given["target_name"]):
        if name in inputs or not name:
            text = f"is {name!r}; expected an input that is not among those of clients"
            yield f"{path}.target_name[{number}]", text


def _batch_output(
    path: str, given: Mapping[str, Any], inputs: Tensors, outputs: Tensors
) -> Iterator[Problem]:
    yield from _source(path, given, inputs)
    if not given["target_name"]:
        yield f"{path}.target_name", "is not given; expected the name of an output"
    for number, name in enumerate(given["target_name"]):
        here = f"{path}.target_name[{number}]"
        if outputs and name not in outputs:
            yield here, f"is {name!r}; expected one of {', '.join(outputs)}"
        elif name in outputs:
            yield from _scattered(
                here, outputs[name], inputs.get(next(iter(given["source_input"]), ""))
            )


def _scattered(
    path: str, output: Mapping[str, Any], source: Mapping[str, Any] | None
) -> Iterator[Problem]:
    if "reshape" in output:
        yield path, f"is {output['name']!r}, which has reshape; expected an output without it"
    free = [index for index, size in enumerate(output["dims"]) if size == ANY_SIZE]
    if source is not None and source["dims"] and free and free[-1] >= len(source["dims"]):
        text = (
            f"is {output['name']!r} with dims {list(output['dims'])}; expected dimensions of any size"
            f" only where the source has some too: its dims are {list(source['dims'])}"
        )
        yield path, text


def _source(path: str, given: Mapping[str, Any], inputs: Tensors) -> Iterator[Problem]:
    names = given["source_input"]
    if len(names) != 1:
        yield f"{path}.source_input", f"has {len(names)} names; expected 1, that of an input"
    elif inputs and names[0] not in inputs:
        text = f"is {names[0]!r}; expected one of {', '.join(inputs)}"
        yield f"{path}.source_input[0]", text
    elif names[0] in inputs and inputs[names[0]]["optional"]:
        text = f"is {names[0]!r}, which is optional; expected an input of all requests"
        yield f"{path}.source_input[0]", text


def _made_twice(config: ConfigDict, padding: Padding) -> Iterator[Problem]:
    """Names that are given to more than one thing that the server makes, or takes apart."""
    for key in ("batch_input", "batch_output"):
        seen = set(padding.masks) if key == "batch_input" else {cut.name for cut in padding.outputs}
        for index, given in enumerate(config[key]):
            for number, name in enumerate(given["target_name"]):
                if name in seen:
                    text = f"is {name!r} again; expected each name once, and not in {PREFIX}… too"
                    yield f"{key}[{index}].target_name[{number}]", text
                seen.add(name)


# ── padding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _padding(
    config: ConfigDict, padding: Padding, inputs: Tensors, outputs: Tensors
) -> Iterator[Problem]:
    masks: set[str] = set()
    for given in padding.inputs:
        if given.name in inputs:
            yield from _padded(given, inputs[given.name])
        if given.mask in masks or given.mask in {other.name for other in padding.inputs}:
            text = f"is {given.mask!r}; expected an input that nothing else fills"
            yield _key(given.name, "mask"), text
        elif given.mask in inputs:
            yield from _mask(given, inputs[given.mask])
        masks |= {given.mask} - {""}
    sources = {given.name for given in padding.inputs}
    for cut in padding.outputs:
        if cut.source not in sources:
            known = ", ".join(sorted(sources)) or "none there is"
            yield _key(cut.name, "cut_to"), f"is {cut.source!r}; expected a padded input: {known}"
        elif inputs.get(cut.source, {}).get("optional"):
            text = f"is {cut.source!r}, which is optional; expected an input of all requests"
            yield _key(cut.name, "cut_to"), text
        if cut.name in outputs:
            yield from _cut(cut, outputs[cut.name])


def _padded(given: PaddedInput, tensor: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ("reshape", "allow_ragged_batch"):
        if tensor.get(key):
            text = f"is for an input with {key}; expected only one of them"
            yield _key(given.name, "buckets"), text
    if tensor["data_type"] == "TYPE_STRING":
        yield _key(given.name, "buckets"), "is for TYPE_STRING, which can't be padded"
    elif tensor["data_type"] in known_datatypes():
        try:
            fill_bits(Tensor(name="", data_type=tensor["data_type"], dims=()).datatype, given.value)
        except ValueError as error:
            yield _key(given.name, "value"), f"is {given.value:g}; {error}"
    if tensor["dims"]:
        yield from _dimension(given.name, "dimension", given.dimension, tensor["dims"])


def _mask(given: PaddedInput, tensor: Mapping[str, Any]) -> Iterator[Problem]:
    path, name = _key(given.name, "mask"), given.mask
    if tensor["data_type"] == "TYPE_STRING":
        yield path, f"is {name!r}, which is TYPE_STRING; expected an input of numbers or TYPE_BOOL"
    if tensor.get("reshape") or tensor["allow_ragged_batch"]:
        yield path, f"is {name!r}, which has reshape or allow_ragged_batch; expected neither"
    dims = list(tensor["dims"])
    if dims and (dims.count(ANY_SIZE) != 1 or not {ANY_SIZE, 1}.issuperset(dims)):
        text = f"is {name!r} with dims {dims}; expected one of any size, and no others but 1"
        yield path, text


def _cut(cut: CutOutput, tensor: Mapping[str, Any]) -> Iterator[Problem]:
    if "reshape" in tensor:
        yield _key(cut.name, "cut_to"), "is for an output with reshape; expected only one of them"
    if tensor["dims"]:
        yield from _dimension(cut.name, "cut_dimension", cut.dimension, tensor["dims"])


def _dimension(
    name: str, key: str, dimension: int | None, dims: Sequence[int]
) -> Iterator[Problem]:
    if dimension_of(dims, dimension) is None:
        free = ", ".join(str(index) for index, size in enumerate(dims) if size == ANY_SIZE)
        is_ = "is not given" if dimension is None else f"is {dimension}"
        yield _key(name, key), f"{is_}; expected a dimension of any size: {free or 'there is none'}"


# ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _without_batches(config: ConfigDict, padding: Padding) -> Iterator[Problem]:
    for key in ("batch_input", "batch_output"):
        if config[key]:
            yield key, "is given with max_batch_size 0; expected a model that takes batches"
    for given in padding.inputs:
        text = "is given with max_batch_size 0; expected a model that takes batches"
        yield _key(given.name, "buckets"), text


def _beside_others(config: ConfigDict, padding: Padding) -> Iterator[Problem]:
    if padding.inputs and "sequence_batching" in config:
        path = _key(padding.inputs[0].name, "buckets")
        yield path, "is not supported beside sequence_batching; expected only one of them"
    for key in ("batch_input", "batch_output"):
        if config[key] and "sequence_batching" in config:
            yield key, "is not supported beside sequence_batching; expected only one of them"
    decoupled = config.get("model_transaction_policy", {}).get("decoupled")
    if padding.outputs and decoupled:
        yield _key(padding.outputs[0].name, "cut_to"), "is not supported for decoupled models"


def _unknown(
    path: str, what: str, name: str, tensors: Sequence[Mapping[str, Any]]
) -> Iterator[Problem]:
    names = [tensor["name"] for tensor in tensors]
    if name not in names:
        yield path, f"names {name!r}; expected {what} of the model: {', '.join(names)}"


def _named(tensors: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {tensor["name"]: tensor for tensor in tensors}


def _key(name: str, what: str) -> str:
    key = f"{PREFIX}{name}.{what}"
    return f"parameters[{key!r}]"
