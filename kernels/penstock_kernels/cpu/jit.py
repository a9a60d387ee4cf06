"""Numba as all twins use it: without the GIL, and compiled once a machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


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
        # neither the package's folder nor the user's can be written
        compiled = compiler()(function)
    return cast(Function, compiled)
