"""What a person types after `--input` as a tensor: a file, JSON, plain text, or standard input."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from penstock.commands.image_values import image_array, is_image
from penstock.commands.v2_client import TensorMetadata
from penstock.errors import InvalidRequest
from penstock.types import NUMPY_DTYPES, Array

FILE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".npy", ".json", ".txt"})
"""A value that ends so names a file."""

_NPY_MAGIC: Final = b"\x93NUMPY"
_NO_FILE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def read_values(values: Sequence[str], tensor: TensorMetadata, stdin: BinaryIO) -> Array:
    """The values of one input as one array of the wire shape; several are joined to a batch.

    Raises InvalidRequest, naming the input, where a value can't be read or does not fit.
    """
    if len(values) > 1 and tensor.shape[:1] != (-1,):
        raise InvalidRequest(
            f"input {tensor.name!r} is given {len(values)} times, but the model takes no batches"
        )
    try:
        arrays = [fit(read_value(value, tensor, stdin), tensor.shape) for value in values]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    except (InvalidRequest, ValueError) as error:
        raise InvalidRequest(f"input {tensor.name!r}: {error}") from error


def read_value(value: str, tensor: TensorMetadata, stdin: BinaryIO) -> Array:
    """One value as an array of the input's dtype, in its own shape. Raises InvalidRequest."""
    content = stdin.read() if value == "-" else _file_content(value, tensor.datatype)
    if content is None:
        return _literal(value, tensor)
    if content.startswith(_NPY_MAGIC):
        return _converted(np.load(BytesIO(content), allow_pickle=False), tensor.datatype)
    if is_image(content) and tensor.datatype != "BYTES":
        return image_array(content, tensor.datatype, tensor.shape)
    return _content(content, tensor)


def fit(array: Array, shape: Sequence[int]) -> Array:
    """The array in the wire shape, where a leading -1 takes one item or many.

    Dimensions of 1 may be missing. Raises InvalidRequest when it does not fit.
    """
    if shape and shape[0] == -1:
        item = _reshaped(array, shape[1:])
        if item is not None:
            return item[None]
        rows = array.shape[0] if array.ndim else 1
        shape_now = (rows, *shape[1:])
    else:
        shape_now = tuple(shape)
    fitted = _reshaped(array, shape_now)
    if fitted is None:
        raise InvalidRequest(f"shape {list(array.shape)} does not fit {list(shape)}")
    return fitted


def _reshaped(array: Array, dims: Sequence[int]) -> Array | None:
    """The array in `dims` (-1: any size); None if they differ by more than dimensions of 1."""
    if _matches(array.shape, dims):
        return array
    if array.size == 1 and {1, -1}.issuperset(dims):
        return array.reshape((1,) * len(dims))
    sizes = [size for size in array.shape if size != 1]
    if not _matches(sizes, [dim for dim in dims if dim != 1]):
        return None
    rest = iter(sizes)
    return array.reshape([1 if dim == 1 else next(rest) for dim in dims])


def _matches(sizes: Sequence[int], dims: Sequence[int]) -> bool:
    return len(sizes) == len(dims) and all(
        dim in (-1, size) for size, dim in zip(sizes, dims, strict=True)
    )


def _file_content(value: str, datatype: str) -> bytes | None:
    """The bytes of the file that the value names; None if it names none."""
    if Path(value).suffix.lower() not in FILE_SUFFIXES:
        return None
    try:
        return Path(value).read_bytes()
    except OSError as error:
        # "please read notes.txt" is a sentence.
        if datatype == "BYTES" and error.errno in _NO_FILE and any(map(str.isspace, value)):
            return None
        raise InvalidRequest(f"can't read {value}: {error.strerror}") from error


def _content(content: bytes, tensor: TensorMetadata) -> Array:
    """What a file that is neither picture nor .npy holds: JSON, or for BYTES anything."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        if tensor.datatype == "BYTES":
            return _text_array(content)
        raise InvalidRequest("expected a picture, an .npy file, or JSON; it is none") from error
    return _literal(text.removesuffix("\n"), tensor)


def _literal(text: str, tensor: TensorMetadata) -> Array:
    if tensor.datatype == "BYTES":
        return _texts(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{_shortened(text)} is neither JSON nor a file"
            f" ({', '.join(sorted(FILE_SUFFIXES))}), for {tensor.datatype} {list(tensor.shape)}"
        ) from error
    return _converted(_plain_array(value), tensor.datatype)


def _plain_array(value: Any) -> Array:
    try:
        array = np.array(value)
    except ValueError as error:
        raise InvalidRequest("its lists differ in length") from error
    if array.dtype.kind not in "biuf":
        raise InvalidRequest(f"{_shortened(json.dumps(value))} is not a number or list of numbers")
    return array


def _converted(array: Array, datatype: str) -> Array:
    """The array in the datatype's dtype. Raises InvalidRequest where that would change values."""
    if datatype == "BYTES":
        return _encoded(array)
    wanted = NUMPY_DTYPES[datatype]
    floats = wanted.kind not in "biu"
    if array.dtype.kind not in ("biuf" if floats else "b" if wanted.kind == "b" else "iu"):
        raise InvalidRequest(f"{array.dtype} values for {datatype}")
    if not floats and array.size and wanted.kind != "b":
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InvalidRequest(f"a value is out of the range of {datatype}")
    return array.astype(wanted)


def _texts(text: str) -> Array:
    """A JSON string or list of strings as such, anything else as one plain text."""
    if text.startswith(("[", '"')):
        try:
            array = np.array(json.loads(text))
        except (ValueError, RecursionError):
            return _text_array(_encode(text))
        if array.dtype.kind == "U":
            return _encoded(np.array(json.loads(text), np.object_))
    return _text_array(_encode(text))


def _encoded(array: Array) -> Array:
    """Strings as an object array of `bytes`, of the same shape."""
    flat = array.ravel().tolist()
    if not all(isinstance(item, str | bytes) for item in flat):
        raise InvalidRequest(f"{array.dtype} values for BYTES, expected strings")
    encoded = np.empty(len(flat), np.object_)
    encoded[:] = [item if isinstance(item, bytes) else _encode(item) for item in flat]
    return encoded.reshape(array.shape)


def _encode(text: str) -> bytes:
    """Bytes of an argument that are not UTF-8 come through unchanged."""
    return text.encode("utf-8", "surrogateescape")


def _text_array(content: bytes) -> Array:
    array = np.empty((), np.object_)
    array[()] = content
    return array


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
