"""Runs a session whose inputs and outputs cross to a GPU: the batch is read where it lies, and outputs whose size is
known beforehand are written into memory that was laid out for them, pinned where it can be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np

from penstock.backends.completion import model_dims
from penstock.backends.host_memory import Allocate
from penstock.backends.ragged import ragged_names, scattered_names
from penstock.model_config import ConfigDict
from penstock.types import NUMPY_DTYPES, Array


class BoundRun:
    """`session.run`, by IO binding. For one thread."""

    def __init__(self, session: Any, config: ConfigDict, allocate: Allocate) -> None:
        self._session: Final = session
        self._batching: Final = config["max_batch_size"] > 0
        self._allocate: Final = allocate
        self._sized: Final = _sized(config)
        self._memory: Final[dict[str, Array]] = {}
        self._free = False

    def begin(self) -> None:
        """The outputs of earlier calls are done with: the next call may write where they were. Those after it can't, so
        that a batch may be run request by request."""
        self._free = True

    def __call__(self, names: Sequence[str], feeds: Mapping[str, Array]) -> Sequence[Array]:
        """The outputs `names`, in their order."""
        binding = self._session.io_binding()
        for name, array in feeds.items():
            # not ascontiguousarray, which gives scalars a dimension
            binding.bind_cpu_input(name, np.asarray(array, order="C"))
        placed = self._placed(names, feeds) if self._free else {}
        self._free = False
        for name in names:
            if name in placed:
                to = placed[name]
                binding.bind_output(name, "cpu", 0, to.dtype.type, to.shape, to.ctypes.data)
            else:
                binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        if len(placed) == len(names):
            return [placed[name] for name in names]
        made = binding.get_outputs()
        return [placed[n] if n in placed else made[i].numpy() for i, n in enumerate(names)]

    def _placed(self, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(next(iter(feeds.values()))) if self._batching else 1
        return {name: self._place(name, rows) for name in names if name in self._sized}

    def _place(self, name: str, rows: int) -> Array:
        dtype, dims = self._sized[name]
        shape = (rows, *dims) if self._batching else dims
        nbytes = prod(shape) * dtype.itemsize
        held = self._memory.get(name)
        if held is None or held.nbytes < nbytes:
            held = self._memory[name] = self._allocate(nbytes)
        return held[:nbytes].view(dtype).reshape(shape)


def can_bind(config: ConfigDict) -> bool:
    """Whether ONNX Runtime can bind all its tensors to NumPy's: not strings, and not BF16."""
    tensors = (*config["input"], *config["output"])
    return all(t["data_type"] not in ("TYPE_STRING", "TYPE_BF16") for t in tensors)


def _sized(config: ConfigDict) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """The outputs whose dims are all known, and which have as many rows as the inputs have."""
    if ragged_names(config) or config.get("batch_input") or config.get("sequence_batching"):
        # states are kept from batch to batch
        return {}
    known = {}
    for tensor in config["output"]:
        dims = tuple(model_dims(tensor))
        if dims and min(dims) > 0 and tensor["name"] not in scattered_names(config):
            dtype = NUMPY_DTYPES[tensor["data_type"].removeprefix("TYPE_")]
            known[tensor["name"]] = (dtype, dims)
    return known
