"""A small HTTP client of the Open Inference Protocol: what `penstock infer` and `penstock models` need, typed."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from penstock.commands.client_identity import API_KEY, Identity, why
from penstock.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PenstockError,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from penstock.model_config import ModelConfig
from penstock.tensors import as_array, serialize_bytes
from penstock.types import NUMPY_DTYPES, Array

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_INDEX_PATH: Final = "/v2/repository/index"
_ERRORS: Final[Mapping[int, type[PenstockError]]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: QuotaExceeded,
    503: Unavailable,
}

NO_CERTIFICATE: Final = (
    "it ended the handshake: if it asks for a client certificate, --cert-file and --key-file show"
    " one"
)

NO_CREDENTIAL: Final = (
    f" ({API_KEY} in the environment is the API key to show, --cert-file a certificate)"
)
TLS_ALERT: Final = "\x15\x03"
"""What a server that speaks TLS answers to anything else, if it answers."""

Decoded = TypeVar("Decoded")


class TensorMetadata(msgspec.Struct, frozen=True):
    """One input or output. `shape` has a leading -1 where the model batches."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a server tells of a model."""

    name: str
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()


class IndexEntry(msgspec.Struct, frozen=True):
    """One version of one model, as the repository index lists it."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""
    devices: str = ""
    """Where its instances run; empty also where the server does not tell."""


class RegistryVersionView(msgspec.Struct, frozen=True):
    """A version that a server has from a registry."""

    version: int
    digest: str = ""


class RegistryModelView(msgspec.Struct, frozen=True):
    """A model that a server has from there."""

    name: str
    registered: str = ""
    refs: tuple[str, ...] = ()
    versions: tuple[RegistryVersionView, ...] = ()
    default: int | None = None
    aliases: dict[str, int] = {}
    problem: str = ""
    fetching: tuple[int, ...] = ()


class RegistryView(msgspec.Struct, frozen=True):
    """What a server tells of its registry."""

    agent: bool
    reachable: bool
    models: tuple[RegistryModelView, ...]
    uri: str = ""
    last_contact: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class InputData:
    """An input to send. `array` has the wire shape; BYTES are object arrays of `bytes`."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True)
class OutputData:
    """An output that came back."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True)
class Prediction:
    """A server's answer."""

    model_version: str
    outputs: tuple[OutputData, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    json_bytes: int | None
    """Length of the JSON that begins the body; None: all of it."""
    body: bytes


class _AnswerTensor(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: list[Any] = []


class _InferAnswer(msgspec.Struct, frozen=True):
    outputs: tuple[_AnswerTensor, ...]
    model_version: str = ""


class Client:
    """Asks one server. All methods raise PenstockError with one line for a person."""

    def __init__(self, url: str, timeout_s: float, identity: Identity | None = None) -> None:
        """`url`: `http://host:port`, https, or `host:port`. Raises InvalidRequest on others."""
        self._identity = identity or Identity()
        scheme = "https" if self._identity.speaks_tls else "http"
        self._url = url if "://" in url else f"{scheme}://{url}"
        self._timeout_s = timeout_s
        self._host, self._port, self._secure, self._prefix = _parts(self._url)
        if self._identity.speaks_tls and not self._secure:
            raise InvalidRequest(
                f"{self._url}: --ca-file, --cert-file and --key-file are for https:// alone"
            )
        self._context = self._identity.context() if self._secure else None

    def metadata(self, model: str, version: str) -> ModelMetadata:
        """The model's inputs and outputs. Raises NotFound with what is there, or Unavailable."""
        answer = self._call("GET", _model_path(model, version))
        if answer.status != 200:
            raise self._why_not(model, version) or self._refusal(answer)
        return self._decode(answer.body, ModelMetadata)

    def config(self, model: str, version: str) -> ModelConfig | None:
        """The model's configuration; None where the server doesn't show it."""
        answer = self._call("GET", _model_path(model, version) + "/config")
        return self._decode(answer.body, ModelConfig) if answer.status == 200 else None

    def explain(self, model: str, version: str) -> dict[str, Any]:
        """How the model is scheduled, as the server tells it. Raises NotFound with what is there, or Unavailable."""
        answer = self._call("GET", _model_path(model, version) + "/explain")
        if answer.status != 200:
            raise self._why_not(model, version) or self._refusal(answer)
        return self._decode(answer.body, dict[str, Any])

    def lineage(self, model: str, version: str) -> dict[str, Any]:
        """Where the version comes from, as the server tells it. Raises as `explain` does."""
        answer = self._call("GET", _model_path(model, version) + "/lineage")
        if answer.status != 200:
            raise self._why_not(model, version) or self._refusal(answer)
        return self._decode(answer.body, dict[str, Any])

    def ask(
        self, method: str, path: str, kind: type[Decoded], given: Mapping[str, Any] | None = None
    ) -> Decoded:
        """What any other route answers. `given`: the body, sent as JSON."""
        body = None if given is None else msgspec.json.encode(given)
        answer = self._call(method, path, body)
        if answer.status != 200:
            raise self._refusal(answer)
        return self._decode(answer.body, kind)

    def registry(self) -> RegistryView:
        """What of a registry is served. Raises NotFound where there is none."""
        answer = self._call("GET", "/v2/registry")
        if answer.status != 200:
            raise self._refusal(answer)
        return self._decode(answer.body, RegistryView)

    def index(self) -> list[IndexEntry]:
        """All models and their versions, by name."""
        answer = self._call("POST", _INDEX_PATH, b"{}")
        if answer.status != 200:
            raise self._refusal(answer)
        return self._decode(answer.body, list[IndexEntry])

    def infer(
        self,
        model: str,
        version: str,
        inputs: Sequence[InputData],
        classes: Mapping[str, int],
    ) -> Prediction:
        """One inference. `classes`: output to ask for → top-k as classes, 0 for its numbers."""
        blobs = [_to_bytes(tensor) for tensor in inputs]
        header = msgspec.json.encode(
            {
                "inputs": [_input_json(*pair) for pair in zip(inputs, blobs, strict=True)],
                "outputs": [_output_json(name, top) for name, top in classes.items()],
            }
        )
        headers = {HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"}
        body = b"".join([header, *blobs])
        answer = self._call("POST", _model_path(model, version) + "/infer", body, headers)
        if answer.status != 200:
            raise self._refusal(answer)
        return self._prediction(answer)

    def _prediction(self, answer: _Answer) -> Prediction:
        json_bytes = len(answer.body) if answer.json_bytes is None else answer.json_bytes
        decoded = self._decode(answer.body[:json_bytes], _InferAnswer)
        outputs, rest = [], memoryview(answer.body)[json_bytes:]
        for tensor in decoded.outputs:
            nbytes = tensor.parameters.get("binary_data_size", 0)
            array = _to_array(tensor, rest[:nbytes])
            outputs.append(OutputData(tensor.name, tensor.datatype, array))
            rest = rest[nbytes:]
        return Prediction(decoded.model_version, tuple(outputs))

    def _why_not(self, model: str, version: str) -> PenstockError | None:
        """What the repository index says of a model that doesn't answer; None if nothing."""
        answer = self._call("POST", _INDEX_PATH, b"{}")
        if answer.status != 200:
            return None
        index = self._decode(answer.body, list[IndexEntry])
        entries = [entry for entry in index if entry.name == model]
        if not entries:
            names = sorted({entry.name for entry in index if entry.state == "READY"})
            return NotFound(f"unknown model {model!r}; ready are: {', '.join(names) or 'none'}")
        failed = [e for e in entries if e.state != "READY" and version in ("", e.version)]
        if not failed:
            return None
        why = failed[-1].reason or failed[-1].state.lower() or "not loaded"
        return Unavailable(f"model {model!r} is not ready: {why}")

    def _refusal(self, answer: _Answer) -> PenstockError:
        """The error for an answer that is not 200, in the server's own words where it has some."""
        try:
            text = msgspec.json.decode(answer.body, type=dict[str, Any])["error"]
        except (msgspec.DecodeError, KeyError):
            text = "it does not seem to speak the inference protocol"
        kind = _ERRORS.get(answer.status, PenstockError)
        shows_nothing = self._shows_none and not self._identity.api_key
        hint = NO_CREDENTIAL if kind is Unauthenticated and shows_nothing else ""
        return kind(f"{self._url} answered {answer.status}: {text}{hint}")

    def _decode(self, body: bytes, kind: type[Decoded]) -> Decoded:
        try:
            return msgspec.json.decode(body, type=kind, strict=False)
        except msgspec.DecodeError as error:
            raise Unavailable(
                f"{self._url} does not speak the inference protocol: {error}"
            ) from error

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> _Answer:
        """One exchange on a connection of its own: where the network's errors are translated."""
        try:
            with closing(self._connection()) as connection:
                connection.request(method, self._prefix + path, body, self._with_key(headers))
                response = connection.getresponse()
                length = response.getheader(HEADER_LENGTH)
                json_bytes = None if length is None else int(length)
                return _Answer(response.status, json_bytes, response.read())
        except TimeoutError as error:
            raise Unavailable(f"{self._url} gave no answer within {self._timeout_s:g} s") from error
        except ConnectionRefusedError as error:
            raise Unavailable(
                f"no server answers at {self._url}: start one with `penstock serve model_repo`,"
                " or say where it is with --url"
            ) from error
        except ssl.SSLError as error:
            raise Unavailable(f"can't talk to {self._url}: {self._why_not_tls(error)}") from error
        except OSError as error:
            raise Unavailable(
                f"can't talk to {self._url}: {error.strerror or error}{self._hint(error)}"
            ) from error
        except (HTTPException, ValueError) as error:
            raise Unavailable(
                f"{self._url} does not speak HTTP: {error!r}{self._hint(error)}"
            ) from error

    def _hint(self, error: Exception) -> str:
        """What may be behind it, where a server refuses a client without a word."""
        if self._secure:
            return f": {NO_CERTIFICATE}" if self._shows_none and isinstance(error, OSError) else ""
        is_alert = isinstance(error, BadStatusLine) and str(error).startswith(TLS_ALERT)
        if not is_alert and not isinstance(error, ConnectionResetError):
            return ""
        return f": it may speak TLS: try https://{self._url.partition('://')[2]}"

    def _connection(self) -> HTTPConnection:
        if self._context is not None:
            return HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        return HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    @property
    def _shows_none(self) -> bool:
        return self._identity.cert_file is None

    def _why_not_tls(self, error: ssl.SSLError) -> str:
        """What is wrong with the server's certificate, or with ours."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {error.verify_message} (--ca-file says who is)"
        return f"TLS: {NO_CERTIFICATE if self._shows_none else why(error)}"

    def _with_key(self, headers: Mapping[str, str]) -> dict[str, str]:
        key = self._identity.api_key
        return {**headers, "Authorization": f"Bearer {key}"} if key else dict(headers)


def _parts(url: str) -> tuple[str, int | None, bool, str]:
    """Host, port, whether it is https, path before `/v2`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"{url!r} is not a URL: {error}") from error
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidRequest(f"{url!r} is not a URL, expected one like http://127.0.0.1:8000")
    return host, port, parts.scheme == "https", parts.path.rstrip("/")


def _model_path(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _to_bytes(tensor: InputData) -> bytes:
    if tensor.datatype == "BYTES":
        return serialize_bytes(tensor.array)
    return tensor.array.astype(NUMPY_DTYPES[tensor.datatype]).tobytes()


def _input_json(tensor: InputData, blob: bytes) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.array.shape,
        "parameters": {"binary_data_size": len(blob)},
    }


def _output_json(name: str, classes: int) -> dict[str, Any]:
    top = {"classification": classes} if classes else {}
    return {"name": name, "parameters": {"binary_data": True, **top}}


def _to_array(tensor: _AnswerTensor, data: memoryview) -> Array:
    """From the body's binary part, or from its JSON where a server answers so."""
    if "binary_data_size" in tensor.parameters:
        return as_array(tensor.datatype, tensor.shape, data)
    if tensor.datatype == "BYTES":
        encoded = serialize_bytes([str(text) for text in tensor.data])
        return as_array(tensor.datatype, tensor.shape, encoded)
    return np.array(tensor.data, NUMPY_DTYPES[tensor.datatype]).reshape(tensor.shape)
