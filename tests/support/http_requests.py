"""Bodies of HTTP inference requests, handmade and as tritonclient makes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from penstock.gateway.http_request import DecodedHttpRequest, HttpInferDecoder
from penstock.types import Array

FLOATS = np.array([[1, 2.5, -3, 4]], np.float32)
BINARY = {"binary_data_size": 16}


def tensor(**changes: Any) -> dict[str, Any]:
    """An FP32[1, 4] input; a change to None takes the key out."""
    fields = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, -3, 4], **changes}
    return {key: value for key, value in fields.items() if value is not None}


def request(*inputs: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"inputs": list(inputs or [tensor()]), **others}


def decode_json(body: dict[str, Any] | bytes) -> DecodedHttpRequest:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpInferDecoder().decode("m", "1", text, None)


def decode_binary(
    body: dict[str, Any], binary: bytes, length: str | None = None
) -> DecodedHttpRequest:
    text = json.dumps(body).encode()
    return HttpInferDecoder().decode("m", "1", text + binary, length or str(len(text)))


def peer_body(
    inputs: list[tuple[str, Array]], *, binary: bool = True, **options: Any
) -> tuple[bytes, str | None]:
    """Body and header length as tritonclient makes them of inputs named I0, I1 …"""
    tensors = []
    for index, (datatype, array) in enumerate(inputs):
        item = InferInput(f"I{index}", list(array.shape), datatype)
        tensors.append(item.set_data_from_numpy(array, binary_data=binary))
    body, length = InferenceServerClient.generate_request_body(tensors, **options)
    return body, None if length is None else str(length)


def send(
    decoder: HttpInferDecoder, body: dict[str, Any], data: bytes = bytes(16), model: str = "m"
) -> DecodedHttpRequest:
    text = json.dumps(body, ensure_ascii=False).encode()
    return decoder.decode(model, "1", text + data, str(len(text)))


def binary_request(**others: Any) -> dict[str, Any]:
    return {**others, **request(tensor(data=None, parameters=BINARY))}
