"""The limit on how deep JSON may nest, checked before any parser recurses into it."""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock.errors import InvalidRequest

MAX_JSON_DEPTH: Final = 100

_OTHERS: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEPS: Final = bytes.maketrans(b'[{]}"', b"\x01\x01\xff\xff\x00")
_CHUNK_BYTES: Final = 1 << 20


def check_json_depth(text: bytes) -> None:
    """Raises InvalidRequest where JSON nests deeper than 100. What is not valid JSON may pass."""
    if text.count(b"[") + text.count(b"{") <= MAX_JSON_DEPTH:
        return
    unescaped = text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text
    steps = unescaped.translate(None, _OTHERS).translate(_STEPS)
    depth, in_string = 0, False
    for start in range(0, len(steps), _CHUNK_BYTES):
        chunk = np.frombuffer(steps[start : start + _CHUNK_BYTES], np.int8)
        inside = np.logical_xor.accumulate(chunk == 0) ^ in_string
        depths = np.cumsum(np.where(inside, 0, chunk), dtype=np.int32) + depth
        if depths.max() > MAX_JSON_DEPTH:
            raise InvalidRequest(f"JSON nests deeper than {MAX_JSON_DEPTH} levels")
        depth, in_string = int(depths[-1]), bool(inside[-1])
