"""Regions of shared memory as tritonclient makes them, and requests whose tensors lie there, over either protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import shared_memory

from penstock.tensors import serialize_bytes
from penstock.types import NUMPY_DTYPES, Array
from served import Served, region_key

PROTOCOLS = ("http", "grpc")
PLACE = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")
_numbers = count(1)


class Region:
    """A region that a client has made, and that a server may know under `name`."""

    def __init__(self, byte_size: int) -> None:
        self.name = f"region {next(_numbers)}"
        self.key = region_key(self.name.replace(" ", "-"))
        self.byte_size = byte_size
        self.path = Path("/dev/shm") / self.key.lstrip("/")
        self.handle: Any = shared_memory.create_shared_memory_region(self.name, self.key, byte_size)

    def put(self, array: Array, offset: int = 0) -> int:
        """Write the array; how many bytes it takes."""
        if array.dtype.kind == "O":
            data = np.array(serialize_bytes(array), dtype=object)
            shared_memory.set_shared_memory_region(self.handle, [data], offset)
            return len(data.item())
        shared_memory.set_shared_memory_region(self.handle, [array], offset)
        return array.nbytes

    def get(self, datatype: str, shape: Any, offset: int = 0) -> Array:
        """A copy of what lies there."""
        dtype = NUMPY_DTYPES[datatype]
        array = shared_memory.get_contents_as_numpy(self.handle, dtype, list(shape), offset)
        return np.array(array)

    def register(self, client: Any, byte_size: int | None = None, offset: int = 0) -> None:
        """Tell the server of it."""
        size = self.byte_size if byte_size is None else byte_size
        client.register_system_shared_memory(self.name, self.key, size, offset)


@contextmanager
def region(byte_size: int) -> Iterator[Region]:
    """A new region, gone at the end."""
    made = Region(byte_size)
    try:
        yield made
    finally:
        # its test may have taken its name away
        made.path.touch()
        shared_memory.destroy_shared_memory_region(made.handle)


class Client:
    """NVIDIA's client for one of the protocols."""

    def __init__(self, server: Served, protocol: str) -> None:
        self._server = server
        self.protocol = protocol
        self.module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
        self.client: Any = self.module.InferenceServerClient(
            server.http if protocol == "http" else server.grpc
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def input(self, name: str, datatype: str, shape: Any, *place: Any) -> Any:
        """An input that lies in a region: name, byte size, offset."""
        return self.module.InferInput(name, list(shape), datatype).set_shared_memory(*place)

    def sent(self, name: str, datatype: str, array: Array) -> Any:
        """An input that comes with the request."""
        made = self.module.InferInput(name, list(array.shape), datatype)
        return made.set_data_from_numpy(array)

    def output(self, name: str, *place: Any) -> Any:
        """A requested output, to lie in a region: name, byte size, offset; or to come with the response."""
        made = self.module.InferRequestedOutput(name)
        if place:
            made.set_shared_memory(*place)
        return made

    def infer(self, model: str, inputs: list[Any], outputs: list[Any], **options: Any) -> Any:
        """The result."""
        return self.client.infer(model, inputs, outputs=outputs, **options)

    def later(self, model: str, inputs: list[Any], outputs: list[Any], **options: Any) -> Any:
        """As `infer`, in a thread with a client of its own: its future."""

        def infer() -> Any:
            with Client(self._server, self.protocol) as own:
                return own.infer(model, inputs, outputs, **options)

        future: Future[Any] = Future()
        Thread(target=_settle, args=(future, infer), daemon=True).start()
        return future

    def place(self, result: Any, name: str) -> tuple[str, int, int]:
        """Where the response says that the output is, which it does not hold itself."""
        output: Any = result.get_output(name)
        if self.protocol == "http":
            assert "data" not in output
            region, offset, byte_size = (output["parameters"][key] for key in PLACE)
        else:
            response = result.get_response()
            position = [each.name for each in response.outputs].index(name)
            assert response.raw_output_contents[position] == b""
            region, offset, byte_size = (_value(output.parameters[key]) for key in PLACE)
        return region, offset, byte_size

    def status(self, name: str = "") -> dict[str, dict[str, Any]]:
        """The registered regions by name."""
        shown = self.client.get_system_shared_memory_status(name)
        if self.protocol == "http":
            return {line["name"]: line for line in shown}
        return {name: _fields(line) for name, line in shown.regions.items()}


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is the future's
        future.set_exception(error)


def _fields(line: Any) -> dict[str, Any]:
    return {key: getattr(line, key) for key in ("name", "key", "offset", "byte_size")}


def _value(parameter: Any) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice"))
