"""A bare HTTP client, which sees each byte that comes: also those that nobody asked for."""

from __future__ import annotations

import json
import random
import select
import socket
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_loadtest.chaos.clients import PATIENCE_S, Question
from penstock_loadtest.chaos.explain import BadResponse, HttpError, SecondAnswer
from penstock_loadtest.chaos.questions import Reply

CHUNK_BYTES: Final = 64 * 1024


class RawHttp:
    """HTTP/1.1 on a socket: JSON or binary tensors, by chance."""

    def __init__(self, address: str, rng: random.Random, *, keep: bool = True) -> None:
        """`keep`: whether a connection is used again. A server may close one that has nothing to do: who reads
        slowly can't tell that from a loss."""
        host, _, port = address.partition(":")
        self._address = host, int(port)
        self._rng = rng
        self._keep = keep
        self._socket: socket.socket | None = None
        self._received = b""

    def ask(self, model: str, request_id: str, x: Question) -> Reply:
        """See Client. Raises OSError, HttpError, BadResponse, SecondAnswer."""
        message = http_message(model, request_id, x, binary=self._rng.random() < 0.5)
        try:
            self._check_silence()
            sock = self._socket = self._socket or self._connect()
            sock.sendall(message)
            status, headers, body = self._response(sock)
        except BaseException:
            # what comes later on this connection would be taken for the next one's answer
            self.close()
            raise
        if not self._keep or headers.get("connection") == "close":
            self.close()
        if status != 200:
            raise HttpError(status, _error_text(body))
        return _decode(body, headers.get("inference-header-content-length"))

    def close(self) -> None:
        """See Client."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._received = b""

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=PATIENCE_S)

    def _check_silence(self) -> None:
        """Between response and request a connection says nothing; at most it has ended, and a new one is made."""
        if self._socket is None:
            return
        if not self._received and select.select([self._socket], [], [], 0)[0]:
            try:
                self._received = self._socket.recv(CHUNK_BYTES)
            except ConnectionResetError:
                self._received = b""
            if not self._received:
                self.close()
        if self._received:
            raise SecondAnswer(f"after the response came {self._received[:200]!r}")

    def _response(self, sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with names in lower case, and body."""
        while b"\r\n\r\n" not in self._received:
            self._received += self._more(sock)
        head, _, rest = self._received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        try:
            status, length = int(status_line.split()[1]), int(headers["content-length"])
        except (IndexError, ValueError, KeyError):
            raise BadResponse(f"no status or length in {head[:300]!r}") from None
        chunks, missing = [rest], length - len(rest)
        while missing > 0:
            chunks.append(self._more(sock))
            missing -= len(chunks[-1])
        whole = b"".join(chunks)
        self._received = whole[length:]
        return status, headers, whole[:length]

    def _more(self, sock: socket.socket) -> bytes:
        data = sock.recv(CHUNK_BYTES)
        if not data:
            raise ConnectionResetError("the connection ended within the response, or before it")
        return data


def http_message(model: str, request_id: str, x: Question, *, binary: bool) -> bytes:
    """A whole inference request, as JSON alone or with a binary tensor."""
    tensor: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": list(x.shape)}
    request = {"id": request_id, "inputs": [tensor], "parameters": {"binary_data_output": binary}}
    if binary:
        tensor["parameters"] = {"binary_data_size": x.nbytes}
        json_part = json.dumps(request).encode()
        body = json_part + x.tobytes()
        own = [f"inference-header-content-length: {len(json_part)}"]
    else:
        tensor["data"] = x.ravel().tolist()
        body = json.dumps(request).encode()
        own = ["content-type: application/json"]
    head = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: localhost", *own]
    return "\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body


def _decode(body: bytes, json_bytes: str | None) -> Reply:
    """Raises BadResponse on what is no inference response."""
    try:
        return _reply(body, len(body) if json_bytes is None else int(json_bytes))
    except (ValueError, KeyError, TypeError) as error:
        raise BadResponse(f"{error!r} in {body[:300]!r}") from error


def _reply(body: bytes, json_bytes: int) -> Reply:
    head = json.loads(body[:json_bytes])
    arrays: dict[str, NDArray[Any]] = {}
    at = json_bytes
    for output in head["outputs"]:
        dtype = np.dtype({"FP32": np.float32, "INT32": np.int32}[output["datatype"]])
        if "data" in output:
            array = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            array = np.frombuffer(body[at : at + size], dtype)
            at += size
        arrays[output["name"]] = array.reshape(output["shape"])
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes are left after the last tensor")
    return Reply(head["id"], arrays.get("Y"), arrays.get("GENERATION"))


def _error_text(body: bytes) -> str:
    """The protocol's error text, or the body itself where it is none."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"not the protocol's error: {body[:300]!r}"
