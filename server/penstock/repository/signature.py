"""A model's signature, compiled when it loads: checks each distinct request header once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import Final

from penstock.errors import InvalidRequest
from penstock.image_config import MAX_SENT_SIDE
from penstock.model_config import ModelConfig, Tensor, wire_shape
from penstock.repository.queue_terms import QueueTermsReader
from penstock.repository.sequence_terms import sequence_reader
from penstock.repository.uneven_rules import UnevenRules
from penstock.tensors import expected_nbytes
from penstock.types import InferHeader, TensorSpec
from penstock.workers.client_regions import Input
from penstock.workers.request import RequestPlan

MAX_EMPTY: Final = 2**40
"""Most that the dimensions beside a 0 may multiply to: neither NumPy nor messages take any size there."""


class Signature:
    """What a model takes and gives."""

    def __init__(
        self,
        config: ModelConfig,
        uneven: UnevenRules | None = None,
        images: frozenset[str] = frozenset(),
    ) -> None:
        """`uneven`: how requests of different shapes are joined; None: they are not. `images`: inputs that take them,
        of any size but none."""
        self._model = config.name
        self._max_batch_size = config.max_batch_size
        self._inputs = {tensor.name: tensor for tensor in config.input}
        self._outputs = {tensor.name: tensor for tensor in config.output}
        self._queue_terms = QueueTermsReader(config)
        self._sequence = sequence_reader(config)
        self._uneven = uneven
        self._images = images
        self._required = [tensor.name for tensor in config.input if not tensor.optional]

    def plan(self, header: InferHeader) -> RequestPlan:
        """Check a header against the signature. Raises InvalidRequest with the text Triton's clients know."""
        given = {tensor.name: index for index, tensor in enumerate(header.inputs)}
        self._check_names(header, given)
        names = tuple(name for name in self._inputs if name in given)
        tensors = [header.inputs[given[name]] for name in names]
        for tensor in tensors:
            self._check_tensor(tensor)
        rows = self._rows(tensors)
        batched = self._max_batch_size > 0
        order = tuple(given[name] for name in names)
        sizes = [expected_nbytes(tensor.datatype, tensor.shape) for tensor in tensors]
        shape_key: Hashable = tuple((t.name, t.shape[1:] if batched else t.shape) for t in tensors)
        uneven = None
        if self._uneven is not None:
            shape_key, uneven = self._uneven.plan(tensors, rows)
        queue = self._queue_terms.read(header.parameters)
        return RequestPlan(
            rows=rows,
            shape_key=shape_key,
            input_names=names,
            datatypes=tuple(tensor.datatype for tensor in tensors),
            shapes=tuple(tensor.shape for tensor in tensors),
            sizes_bytes=tuple(-1 if size is None else size for size in sizes),
            order=None if order == tuple(range(len(order))) else order,
            output_names=self._output_names(header),
            classes={o.name: o.classification for o in header.outputs if o.classification},
            parameters=dict(header.parameters),
            priority=queue.level,
            timeout_us=queue.timeout_us,
            queue_timeout_us=queue.queue_timeout_us,
            sequence=None if self._sequence is None else self._sequence(header.parameters, rows),
            uneven=uneven,
        )

    def raw_header(self, model_name: str, model_version: str, nbytes: int) -> InferHeader:
        """The header of a request that is nothing but the bytes of the model's only input.

        Raises InvalidRequest when the model has several inputs, or their shape can't be told from the bytes.
        """
        if len(self._inputs) != 1:
            raise InvalidRequest(
                f"Raw request must only have 1 input (found {len(self._inputs)}) to be deduced but got "
                f"{len(self._inputs)} inputs in '{self._model}' model configuration"
            )
        tensor = next(iter(self._inputs.values()))
        dims = list(tensor.dims)
        if tensor.datatype == "BYTES":
            if dims not in ([], [1]):
                raise InvalidRequest(
                    "For BYTES datatype raw input, the model must have input shape [1]"
                )
        elif -1 in dims:
            dims = self._deduced(tensor, dims, nbytes)
        shape = (1, *dims) if self._max_batch_size > 0 else tuple(dims)
        return InferHeader(
            model_name, model_version, (TensorSpec(tensor.name, tensor.datatype, shape),)
        )

    def _deduced(self, tensor: Tensor, dims: list[int], nbytes: int) -> list[int]:
        """The one dimension that is not fixed, from the bytes."""
        known = expected_nbytes(tensor.datatype, [d for d in dims if d != -1]) or 1
        if dims.count(-1) > 1 or nbytes % known:
            raise InvalidRequest(
                f"The shape of the raw input '{tensor.name}' can not be deduced from {nbytes} bytes: "
                f"its dims are {list(tensor.dims)}"
            )
        return [nbytes // known if d == -1 else d for d in dims]

    def _check_names(self, header: InferHeader, given: dict[str, int]) -> None:
        if len(given) != len(header.inputs):
            raise InvalidRequest(f"duplicate input in request for model '{self._model}'")
        for name in given:
            if name not in self._inputs:
                raise InvalidRequest(
                    f"unexpected inference input '{name}' for model '{self._model}', "
                    f"expected {', '.join(self._inputs)}"
                )
        for name in self._required:
            if name not in given:
                raise InvalidRequest(
                    f"expected {len(self._required)} inputs but got {len(given)} inputs for model "
                    f"'{self._model}': input '{name}' is missing"
                )

    def _check_tensor(self, tensor: TensorSpec) -> None:
        expected = self._inputs[tensor.name]
        if tensor.datatype != expected.datatype:
            raise InvalidRequest(
                f"inference input '{tensor.name}' data-type is '{tensor.datatype}', but model "
                f"'{self._model}' expects '{expected.datatype}'"
            )
        dims = wire_shape(expected, self._max_batch_size)
        expected_nbytes(tensor.datatype, tensor.shape)
        if len(dims) != len(tensor.shape) or any(
            d not in (-1, s) for d, s in zip(dims, tensor.shape, strict=True)
        ):
            raise InvalidRequest(
                f"unexpected shape for input '{tensor.name}' for model '{self._model}'. "
                f"Expected {_brackets(dims)}, got {_brackets(tensor.shape)}"
            )
        if tensor.name in self._images:
            _check_image(tensor)
        if 0 in tensor.shape and prod(filter(None, tensor.shape)) > MAX_EMPTY:
            raise InvalidRequest(
                f"shape {_brackets(tensor.shape)} of input '{tensor.name}' has a too large dimension"
            )

    def _rows(self, tensors: Sequence[TensorSpec]) -> int:
        if self._max_batch_size == 0:
            return 1
        rows = tensors[0].shape[0] if tensors else 1
        for tensor in tensors:
            if tensor.shape[0] != rows:
                raise InvalidRequest(
                    f"input '{tensor.name}' batch size does not match other inputs for '{self._model}': "
                    f"{tensor.shape[0]} and {rows}"
                )
        if not 1 <= rows <= self._max_batch_size:
            raise InvalidRequest(
                f"inference request batch-size must be <= {self._max_batch_size} for '{self._model}'"
                f" and at least 1, got {rows}"
            )
        return rows

    def _output_names(self, header: InferHeader) -> tuple[str, ...]:
        for output in header.outputs:
            if output.name not in self._outputs:
                raise InvalidRequest(
                    f"unexpected inference output '{output.name}' for model '{self._model}', "
                    f"expected {', '.join(self._outputs)}"
                )
        names = tuple(output.name for output in header.outputs)
        for name in names:
            if names.count(name) > 1:
                raise InvalidRequest(f"output '{name}' already exists in request")
        return names


def check_sizes(plan: RequestPlan, buffers: Sequence[Input]) -> None:
    """Check that the bytes that came are as many as the header says. Raises InvalidRequest."""
    for index, expected in enumerate(plan.sizes_bytes):
        if expected not in (-1, len(buffers[index])):
            raise InvalidRequest(
                f"input byte size mismatch for input '{plan.input_names[index]}'. "
                f"Expected {expected}, got {len(buffers[index])}"
            )


def _check_image(tensor: TensorSpec) -> None:
    sides = tensor.shape[-3:-1]
    if 0 in sides:
        expected = "expected images of at least one pixel"
    elif max(sides) > MAX_SENT_SIDE:
        expected = f"expected images of at most {MAX_SENT_SIDE} pixels a side"
    else:
        return
    raise InvalidRequest(f"input '{tensor.name}' has shape {_brackets(tensor.shape)}; {expected}")


def _brackets(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
