"""The worker's way out: a model's answers are checked against its signature and written into the slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from penstock.backends.base import Outputs, RequestInfo
from penstock.errors import ModelFailed
from penstock.model_config import ModelConfig
from penstock.model_config import Tensor as TensorConfig
from penstock.tensors import serialize_bytes
from penstock.types import DATATYPES, Array
from penstock.workers.messages import OutputSlot, RequestError
from penstock.workers.slab import Slab, align

Answers = Outputs | Sequence[Outputs | ModelFailed]


@dataclass(frozen=True, slots=True)
class Part:
    """One output of `count` requests from `first` on."""

    config: TensorConfig
    datatype: str
    array: Array
    first: int
    rows: tuple[int, ...]
    """Rows of each of the requests."""


def write_outputs(
    slab: Slab, offset: int, config: ModelConfig, requests: Sequence[RequestInfo], answers: Answers
) -> tuple[tuple[OutputSlot, ...], tuple[RequestError, ...]]:
    """Check the answers and write them from `offset` on, growing the slab when they need more.

    Raises ModelFailed when the model's answer contradicts its configuration as a whole; what is wrong with one
    request's answer comes back as its RequestError.
    """
    signature = {output.name: output for output in config.output}
    errors: list[RequestError] = []
    if isinstance(answers, Mapping):
        rows = tuple(request.rows for request in requests)
        parts = _parts(config, signature, answers, 0, rows)
    else:
        if len(answers) != len(requests):
            raise ModelFailed(
                f"model '{config.name}' gave {len(answers)} answers to {len(requests)} requests"
            )
        parts = []
        for run in _uniform_runs(answers, errors, config, signature, requests):
            parts.extend(run)
    return tuple(_write(slab, parts, offset)), tuple(errors)


def _parts(
    config: ModelConfig,
    signature: Mapping[str, TensorConfig],
    outputs: Outputs,
    first: int,
    rows: tuple[int, ...],
) -> list[Part]:
    parts = []
    for name, value in outputs.items():
        expected = signature.get(name)
        if expected is None:
            raise ModelFailed(
                f"model '{config.name}' gave output '{name}', its outputs are: {', '.join(signature)}"
            )
        array = np.asarray(value)
        datatype = _check(config, expected, array, sum(rows))
        parts.append(Part(expected, datatype, array, first, rows))
    return parts


def _uniform_runs(
    answers: Sequence[Outputs | ModelFailed],
    errors: list[RequestError],
    config: ModelConfig,
    signature: Mapping[str, TensorConfig],
    requests: Sequence[RequestInfo],
) -> list[list[Part]]:
    """The parts of each request, or its error.

    Neighbours whose answers are alike (names, dtypes, shapes but the first dimension) are joined into one run, so
    that a batch costs the gateway one slot an output rather than one a request.
    """
    runs: list[list[Part]] = []
    layout: tuple[object, ...] | None = None
    members: list[Outputs] = []
    first = 0

    def close(end: int) -> None:
        if members:
            rows = tuple(requests[index].rows for index in range(first, end))
            joined = {
                name: members[0][name]
                if len(members) == 1
                else np.concatenate([outputs[name] for outputs in members])
                for name in members[0]
            }
            runs.append(_parts(config, signature, joined, first, rows))
            members.clear()

    batched = config.max_batch_size > 0
    for index, answer in enumerate(answers):
        if isinstance(answer, ModelFailed):
            close(index)
            errors.append(RequestError(index, str(answer)))
            layout = None
            continue
        try:
            for name, array in answer.items():
                if name in signature:
                    _check(config, signature[name], array, requests[index].rows)
        except ModelFailed as error:
            close(index)
            errors.append(RequestError(index, str(error)))
            layout = None
            continue
        own = tuple((name, a.dtype, a.shape[1:]) for name, a in answer.items()) if batched else None
        if own is None or own != layout:
            close(index)
            layout, first = own, index
        members.append(answer)
    close(len(answers))
    return runs


def _check(config: ModelConfig, expected: TensorConfig, array: Array, rows: int) -> str:
    """The array's protocol datatype. Raises ModelFailed when dtype or shape contradict the configuration."""
    datatype = "BYTES" if array.dtype.kind in "OSU" else DATATYPES.get(array.dtype)
    where = f"model '{config.name}', output '{expected.name}'"
    if datatype != expected.datatype:
        raise ModelFailed(
            f"{where}: the configuration says {expected.datatype}, the model gave {datatype or array.dtype}"
        )
    shape: tuple[int, ...] = array.shape
    if config.max_batch_size > 0:
        if not shape or shape[0] != rows:
            raise ModelFailed(
                f"{where}: expected a first dimension of {rows}, one row for each row of input, "
                f"the model gave shape {list(shape)}"
            )
        shape = shape[1:]
    dims = expected.dims
    if len(shape) != len(dims) or any(d not in (-1, s) for d, s in zip(dims, shape, strict=True)):
        raise ModelFailed(
            f"{where}: the configuration says dims {list(dims)}, the model gave {list(shape)}"
        )
    return datatype


def _write(slab: Slab, parts: Sequence[Part], offset: int) -> list[OutputSlot]:
    slots = []
    for part in parts:
        offset = align(offset)
        array, ends = part.array, ()
        if part.datatype == "BYTES":
            blocks = _serialized(part)
            ends = tuple(accumulate(map(len, blocks)))
            data = b"".join(blocks)
            nbytes = len(data)
            slab.ensure(offset + nbytes)
            slab.view[offset : offset + nbytes] = data
        else:
            nbytes = array.nbytes
            slab.ensure(offset + nbytes)
            target = np.ndarray(array.shape, dtype=array.dtype, buffer=slab.view, offset=offset)
            target[...] = array
        slots.append(
            OutputSlot(
                part.config.name,
                part.datatype,
                array.shape,
                offset,
                nbytes,
                part.first,
                len(part.rows),
                ends,
            )
        )
        offset += nbytes
    return slots


def _serialized(part: Part) -> list[bytes]:
    """The wire form of each request's share of a BYTES output."""
    array = part.array.astype(object, copy=False)
    if len(part.rows) == 1:
        return [serialize_bytes(array)]
    ends = list(accumulate(part.rows))
    return [serialize_bytes(array[end - n : end]) for n, end in zip(part.rows, ends, strict=True)]
