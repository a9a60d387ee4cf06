"""Numba as all twins use it: without the GIL, and compiled once a machine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """For what other twins call for each element: compiled into them."""
    return cast(Function, numba.njit(forceinline=True, error_model="numpy")(function))


def jit(function: Function) -> Function:
    """Compile at the first call with each kind of arguments, and keep that on disk where there is a place for it.

    The sums of a row may be taken in any order (vectors need that); NaN and infinities are as in IEEE 754.
    """
    compiler = partial(
        numba.njit, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy"
    )
    try:
        compiled = compiler(cache=True)(function)
    except RuntimeError:
        _tell_once("neither the package's folder nor the user's cache can be written")
        compiled = compiler()(function)
    else:
        _stamp(compiled)
        _forgive(compiled)
    return cast(Function, compiled)


def _stamp(compiled: Any) -> None:
    """What is kept is also dropped when another of the twins' files has changed, for what is inlined may be there.
    Numba itself looks at the time and size of the function's own file alone."""
    file = compiled._cache._cache_file
    file._source_stamp = (file._source_stamp, _sources())


def _forgive(compiled: Any) -> None:
    kept = compiled._cache
    kept._guard_against_spurious_io_errors = partial(_as_if_empty, kept)


@contextmanager
def _as_if_empty(kept: Any) -> Iterator[None]:
    """Around Numba's reading and writing of what is kept: a disk that is full, or a file that was cut, is no reason not
    to compile. What can't be read is forgotten, and kept anew."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (pickles that are damaged raise anything)
        if isinstance(error, OSError):
            _tell_once(str(error))
        with suppress(OSError):
            kept._cache_file.flush()


@cache
def _tell_once(why: str) -> None:
    log.warning("kernels are compiled anew at each start, which takes seconds: %s", why)


@cache
def _sources() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join([file.read_bytes() for file in files])).hexdigest()
