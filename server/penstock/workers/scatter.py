"""The worker's way out: a model's answers are checked against its signature and written into the slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from penstock.backends.base import Answers, Outputs, RequestInfo
from penstock.errors import ModelFailed, PenstockError
from penstock.model_config import ModelConfig
from penstock.model_config import Tensor as TensorConfig
from penstock.tensors import serialize_bytes
from penstock.types import DATATYPES, Array
from penstock.workers.message import sendable
from penstock.workers.message_parts import OutputSlot, RequestError
from penstock.workers.slab import Slab, align


@dataclass(frozen=True, slots=True)
class Part:
    """One output of some neighbouring requests, from `first` on."""

    name: str
    datatype: str
    arrays: Sequence[Array]
    """To be joined along the first dimension: one for all of the requests, or one for each."""
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
    if isinstance(answers, Mapping):
        rows = tuple([request.rows for request in requests])
        check_all(config, signature, answers, sum(rows))
        return tuple(_write(slab, _parts([answers], 0, rows), offset)), ()
    if len(answers) != len(requests):
        raise ModelFailed(
            f"model '{config.name}' gave {len(answers)} answers to {len(requests)} requests"
        )
    parts, errors = _joined(config, signature, requests, answers)
    return tuple(_write(slab, parts, offset)), tuple(errors)


def _joined(
    config: ModelConfig,
    signature: Mapping[str, TensorConfig],
    requests: Sequence[RequestInfo],
    answers: Sequence[Outputs | PenstockError],
) -> tuple[list[Part], list[RequestError]]:
    """The parts of each request's answer, or its error.

    Neighbours whose answers are alike (names, dtypes, shapes but the first dimension) are joined into one run: it is
    checked once, copied at once, and costs the gateway one slot an output rather than one a request.
    """
    parts: list[Part] = []
    errors: list[RequestError] = []
    run: list[Outputs] = []
    rows: list[int] = []
    layout: object = None
    first = 0
    batched = config.max_batch_size > 0
    for index, (answer, request) in enumerate(zip(answers, requests, strict=True)):
        own = _layout(answer, request.rows) if batched else None
        if own is None or own != layout:
            parts += _parts(run, first, tuple(rows))
            run, rows, first, layout = [], [], index, own
            try:
                if isinstance(answer, PenstockError):
                    raise answer
                check_all(config, signature, answer, request.rows)
            except PenstockError as error:
                kind = type(error).__name__
                errors.append(RequestError(index, sendable(str(error)), kind))
                first, layout = index + 1, None
                continue
        run.append(answer)  # type: ignore[arg-type]
        rows.append(request.rows)
    parts += _parts(run, first, tuple(rows))
    return parts, errors


def _layout(answer: Outputs | PenstockError, rows: int) -> object:
    """Equal for answers that can be joined; None for one that must be looked at by itself."""
    if isinstance(answer, PenstockError):
        return None
    layout = []
    for name, array in answer.items():
        shape = array.shape
        if not shape or shape[0] != rows:
            return None
        layout.append((name, array.dtype, shape[1:]))
    return layout


def _parts(run: Sequence[Outputs], first: int, rows: tuple[int, ...]) -> list[Part]:
    if not run:
        return []
    return [
        Part(
            name,
            datatype_of(run[0][name]) or "",
            [outputs[name] for outputs in run] if len(run) > 1 else [run[0][name]],
            first,
            rows,
        )
        for name in run[0]
    ]


def check_all(
    config: ModelConfig, signature: Mapping[str, TensorConfig], outputs: Outputs, rows: int | None
) -> None:
    """Raises ModelFailed when names, dtypes or shapes contradict the configuration. `rows` None: there may be any
    number of them."""
    for name, array in outputs.items():
        expected = signature.get(name)
        if expected is None:
            raise ModelFailed(
                f"model '{config.name}' gave output '{name}', its outputs are: {', '.join(signature)}"
            )
        _check(config, expected, array, rows)


def datatype_of(array: Array) -> str | None:
    """The protocol's name of its dtype."""
    return "BYTES" if array.dtype.kind in "OSU" else DATATYPES.get(array.dtype)


def _check(config: ModelConfig, expected: TensorConfig, array: Array, rows: int | None) -> None:
    """Raises ModelFailed when dtype or shape contradict the configuration."""
    datatype = datatype_of(array)
    where = f"model '{config.name}', output '{expected.name}'"
    if datatype != expected.datatype:
        raise ModelFailed(
            f"{where}: the configuration says {expected.datatype}, the model gave {datatype or array.dtype}"
        )
    shape: tuple[int, ...] = array.shape
    if config.max_batch_size > 0:
        if not shape or rows not in (None, shape[0]):
            expected_rows = "" if rows is None else f" of {rows}, one row for each row of input"
            raise ModelFailed(
                f"{where}: expected a first dimension{expected_rows}, "
                f"the model gave shape {list(shape)}"
            )
        shape = shape[1:]
    dims = expected.dims
    if len(shape) != len(dims) or any(d not in (-1, s) for d, s in zip(dims, shape, strict=True)):
        raise ModelFailed(
            f"{where}: the configuration says dims {list(dims)}, the model gave {list(shape)}"
        )


def _write(slab: Slab, parts: Sequence[Part], offset: int) -> list[OutputSlot]:
    slots = []
    for part in parts:
        offset = align(offset)
        write = _write_bytes if part.datatype == "BYTES" else _write_numbers
        slot = write(slab, part, offset)
        slots.append(slot)
        offset += slot.nbytes
    return slots


def _write_numbers(slab: Slab, part: Part, offset: int) -> OutputSlot:
    arrays = part.arrays
    nbytes = sum([array.nbytes for array in arrays])
    slab.ensure(offset + nbytes)
    first = arrays[0]
    shape = first.shape if len(arrays) == 1 else (sum(part.rows), *first.shape[1:])
    target = np.ndarray(shape, dtype=first.dtype, buffer=slab.view, offset=offset)
    if len(arrays) == 1:
        target[...] = first
    else:
        np.concatenate(arrays, out=target)
    return OutputSlot(
        part.name, part.datatype, shape, offset, nbytes, part.first, len(part.rows), ()
    )


def _write_bytes(slab: Slab, part: Part, offset: int) -> OutputSlot:
    arrays = [np.asarray(array, object) for array in part.arrays]
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if len(part.rows) == 1:
        blocks = [serialize_bytes(joined)]
    else:
        ends = accumulate(part.rows)
        blocks = [
            serialize_bytes(joined[end - n : end]) for n, end in zip(part.rows, ends, strict=True)
        ]
    data = b"".join(blocks)
    slab.ensure(offset + len(data))
    slab.view[offset : offset + len(data)] = data
    return OutputSlot(
        part.name,
        part.datatype,
        joined.shape,
        offset,
        len(data),
        part.first,
        len(part.rows),
        tuple(accumulate(map(len, blocks))),
    )
