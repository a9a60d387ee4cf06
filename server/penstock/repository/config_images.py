"""What can be wrong in the parts of a configuration that make images fit a model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.errors import ConfigError
from penstock.image_config import PREFIX, TYPES, ImageInput, read_images
from penstock.model_config import ConfigDict, known_datatypes
from penstock.padding_config import read_padding

Problem = tuple[str, str]
"""Path of a key, and what is wrong there."""


def image_problems(config: ConfigDict) -> Iterator[Problem]:
    """What is wrong in a configuration with all its defaults; inputs may still be left to the model."""
    images, wrong = read_images(config)
    for key, text in wrong:
        yield f"parameters[{key!r}]", text
    if wrong:
        return
    inputs = {tensor["name"]: tensor for tensor in config["input"]}
    for image in images:
        yield from _beside_others(image, config)
        if image.name in inputs:
            yield from _tensor(image, inputs[image.name])


def incomplete_images(config: ConfigDict) -> Iterator[Problem]:
    """What is named and not there, in a configuration that the model's files completed."""
    names = [tensor["name"] for tensor in config["input"]]
    for image in read_images(config)[0]:
        if image.name not in names:
            expected = f"expected an input of the model: {', '.join(names)}"
            yield _path(image), f"names {image.name!r}; {expected}"


def _tensor(image: ImageInput, tensor: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ("reshape", "allow_ragged_batch"):
        if tensor.get(key):
            yield _path(image), f"is for an input with {key}; expected only one of them"
    data_type = tensor["data_type"]
    if data_type in known_datatypes() and data_type not in TYPES:
        yield (
            _path(image),
            f"is for {data_type}; expected {', '.join(TYPES)}: the model's own input",
        )
    if tensor["dims"]:
        try:
            image.recipe(tensor["dims"])
        except ConfigError as error:
            path, _, text = str(error).partition(" ")
            yield path, text


def _beside_others(image: ImageInput, config: ConfigDict) -> Iterator[Problem]:
    for key in ("sequence_batching", "ensemble_scheduling"):
        if key in config:
            yield _path(image), f"is not supported beside {key}; expected only one of them"
    padding, _ = read_padding(config)
    for padded in padding.inputs:
        if image.name in (padded.name, padded.mask):
            yield (
                _path(image),
                f"is for an input of padding.{padded.name}; expected only one of them",
            )
    for key in ("batch_input", "batch_output"):
        for index, given in enumerate(config[key]):
            if image.name in given["source_input"]:
                text = f"is {image.name!r}, which images are sent to; expected another input"
                yield f"{key}[{index}].source_input", text


def _path(image: ImageInput) -> str:
    key = f"{PREFIX}{image.name}.resize"
    return f"parameters[{key!r}]"
