"""libc's memcpy: of loops over bytes, LLVM makes no vectors where it can't know that the arrays are two."""

from __future__ import annotations

from typing import Any, Final

from numba.core import cgutils, types
from numba.extending import intrinsic


def _copy_bytes(_context: Any, to: Any, _at: Any, source: Any, _start: Any, _count: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        array, at, source_array, start, count = arguments
        kinds = signature.args
        written = context.make_array(kinds[0])(context, builder, array).data
        read = context.make_array(kinds[2])(context, builder, source_array).data
        place, first = builder.gep(written, [at]), builder.gep(read, [start])
        cgutils.raw_memcpy(builder, place, first, count, 1)  # type: ignore[no-untyped-call]

    return types.void(to, types.intp, source, types.intp, types.intp), generated


copy_bytes: Final[Any] = intrinsic(_copy_bytes)
"""copy_bytes(to, at, source, start, count): to[at : at + count] = source[start : start + count], of uint8 [bytes]. They
must not overlap, and nobody looks whether they have so many."""
