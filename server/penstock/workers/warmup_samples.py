"""The samples of `model_warmup`: Triton's block as frozen values, and what can be wrong in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from penstock.backends.hidden_tensors import without
from penstock.image_config import as_clients_see
from penstock.model_config import ANY_SIZE, ConfigDict, ConfigPart, Tensor, settle
from penstock.padding_config import read_padding

NO_TYPE: Final = "TYPE_INVALID"
"""What the full form of a configuration has where `data_type` was left out."""
DATA_KINDS: Final = ("zero_data", "random_data", "input_data_file")

Complaint = tuple[str, str]
"""Path of a key (`model_warmup[0].batch_size`), and what is wrong there."""


class WarmupInput(ConfigPart, frozen=True):
    """A `ModelWarmup.Input`. Which kind of data is asked for is told by which of the last three is there."""

    data_type: str = NO_TYPE
    """Triton's spelling; NO_TYPE: that of the model's input."""
    dims: tuple[int, ...] = ()
    """Of one row, without the batch dimension; empty: those of the model's input."""
    zero_data: bool | None = None
    random_data: bool | None = None
    input_data_file: str | None = None
    """Relative to the folder `warmup` in the model's own."""


class Sample(ConfigPart, frozen=True):
    """A `ModelWarmup`: one batch, run `count` times; 0 means once."""

    name: str = ""
    batch_size: int = 0
    count: int = 0
    inputs: Mapping[str, WarmupInput] = {}

    @property
    def rows(self) -> int:
        """Rows of its batch, each a request of its own, as in Triton."""
        return max(self.batch_size, 1)

    @property
    def runs(self) -> int:
        """How often it is run."""
        return max(self.count, 1)


class Control(ConfigPart, frozen=True):
    """An input that tells a model of its sequences."""

    name: str


class State(ConfigPart, frozen=True):
    """A state of a sequence."""

    input_name: str


class SequenceInputs(ConfigPart, frozen=True):
    """What of `sequence_batching` samples may give; what else is in it may still be wrong."""

    control_input: tuple[Control, ...] = ()
    state: tuple[State, ...] = ()


class WarmupConfig(ConfigPart, frozen=True):
    """The parts of a model's configuration that matter to its warm-up."""

    max_batch_size: int = 0
    input: tuple[Tensor, ...] = ()
    model_warmup: tuple[Sample, ...] = ()
    sequence_batching: SequenceInputs | None = None

    @property
    def made_by_server(self) -> frozenset[str]:
        """Inputs of a stateful model that no client sends: Triton's samples give them, ours have them anyhow."""
        batching = self.sequence_batching or SequenceInputs()
        controls = [control.name for control in batching.control_input]
        return frozenset([*controls, *(state.input_name for state in batching.state)])


settle(WarmupConfig)


def parse(config: ConfigDict) -> WarmupConfig:
    """The view of a configuration that this module has. Inputs that the server makes are not in it, and
    those for images are as clients see them."""
    shown = as_clients_see(without(config, read_padding(config)[0].masks))
    return msgspec.convert(shown, WarmupConfig)


def complaints(config: WarmupConfig, index: int, *, complete: bool) -> Iterator[Complaint]:
    """What is wrong in the sample of that index.

    `complete`: the model's files have filled in all that was left open. Before that, only what is given is looked at.
    """
    sample, path = config.model_warmup[index], f"model_warmup[{index}]"
    yield from _batch_size(f"{path}.batch_size", sample, config.max_batch_size, complete)
    known = {tensor.name: tensor for tensor in config.input}
    made = config.made_by_server
    for name, given in sample.inputs.items():
        here = f"{path}.inputs[{name!r}]"
        yield from _data(here, given)
        yield from _sizes(f"{here}.dims", given.dims)
        if name in known:
            yield from _against(here, given, known[name], complete)
        elif complete and name not in made:
            yield here, f"is for no input of the model; expected one of {', '.join(known)}"
    if complete:
        for tensor in config.input:
            if tensor.name not in sample.inputs and not tensor.optional:
                yield f"{path}.inputs", f"lack {tensor.name!r}; expected all that aren't optional"


def _batch_size(path: str, sample: Sample, largest: int, complete: bool) -> Iterator[Complaint]:
    # 0 may mean that max_batch_size is still to be filled in
    if largest > 0 and sample.batch_size > largest:
        yield path, f"is {sample.batch_size}; expected 1 to max_batch_size, which is {largest}"
    elif complete and largest <= 0 and sample.batch_size > 1:
        yield path, f"is {sample.batch_size}; expected 1, for the model takes no batches"


def _data(path: str, given: WarmupInput) -> Iterator[Complaint]:
    file = given.input_data_file
    if file is None:
        if given.zero_data is None and given.random_data is None:
            yield path, f"says nothing of its data; expected one of {', '.join(DATA_KINDS)}"
    elif not file or "\0" in file or file.startswith("/") or ".." in file.split("/"):
        text = f"is {file!r}; expected the name of a file in the folder warmup of the model's own"
        yield f"{path}.input_data_file", text


def _sizes(path: str, dims: Sequence[int]) -> Iterator[Complaint]:
    for number, size in enumerate(dims):
        if size < 1:
            yield f"{path}[{number}]", f"is {size}; expected 1 or more, the size to warm up with"


def _against(
    path: str, given: WarmupInput, expected: Tensor, complete: bool
) -> Iterator[Complaint]:
    """Where the sample contradicts the model's input."""
    if given.data_type not in (NO_TYPE, expected.data_type) and expected.data_type != NO_TYPE:
        text = f"is {given.data_type}; expected {expected.data_type}, which the input has"
        yield f"{path}.data_type", text
    dims = list(expected.dims)
    if not dims and not complete:
        return  # they may be left to the model's files
    if not given.dims and ANY_SIZE in dims:
        yield f"{path}.dims", f"are not given; expected sizes for {dims}"
    elif given.dims and not _fits(given.dims, dims):
        yield f"{path}.dims", f"are {list(given.dims)}; expected {dims}, which the input has"


def _fits(dims: Sequence[int], expected: Sequence[int]) -> bool:
    return len(dims) == len(expected) and all(
        free in (ANY_SIZE, size) for size, free in zip(dims, expected, strict=True)
    )
