"""What a cubin says of its kernels' parameters: what the GPU takes of a launch, whatever a source looks like."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PREFIX = b".nv.info."
_KPARAM_INFO = 0x17
_OF_SIZE = 0x04
"""The attribute's value has a size of its own."""


def parameter_sizes(cubin: bytes, kernel: str) -> list[int]:
    """Bytes of each, in order."""
    content = _section(cubin, _PREFIX + kernel.encode())
    found: dict[int, int] = {}
    for attribute, value in _attributes(content):
        if attribute == _KPARAM_INFO:
            _, ordinal, _, packed = struct.unpack("<IHHI", value)
            found[ordinal] = packed >> 18
    return [found[ordinal] for ordinal in sorted(found)]


def _section(elf: bytes, name: bytes) -> bytes:
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [
        struct.unpack_from("<IIQQQQ", elf, headers + index * size) for index in range(count)
    ]
    names = sections[names_index][4]
    for label, _, _, _, offset, nbytes in sections:
        begin = names + label
        if elf[begin : elf.index(b"\0", begin)] == name:
            return elf[offset : offset + nbytes]
    raise LookupError(f"the cubin has no section {name.decode()}")


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        kind, attribute, size = struct.unpack_from("<BBH", content, at)
        at += 4
        if kind == _OF_SIZE:
            yield attribute, content[at : at + size]
            at += size
