"""Asks a server once with NVIDIA's own client before it is loaded: a fast wrong answer counts for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from penstock_loadtest.cases import Case
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.payloads import Payload, payload_for
from penstock_loadtest.servers import RunningServer
from penstock_loadtest.texts import sample_texts


def check_answer(server: RunningServer, case: Case) -> None:
    """One inference over the case's protocol. Raises BenchmarkError where it fails or the values are wrong."""
    wire: Any = tritonclient.grpc if case.protocol == "grpc" else tritonclient.http
    address = server.grpc_address if case.protocol == "grpc" else server.http_url.split("//")[1]
    client = wire.InferenceServerClient(address)
    try:
        if case.model == "embedder":
            _check_embeddings(client, wire, case.model)
        else:
            _check_values(client, wire, payload_for(case.model))
    except InferenceServerException as error:
        raise BenchmarkError(f"{server.name}, {case.name}: {error}") from error
    finally:
        client.close()


def _check_values(client: Any, wire: Any, payload: Payload) -> None:
    answer = _infer(client, wire, payload.model, "INPUT0", payload.values, "FP32").as_numpy(
        "OUTPUT0"
    )
    if not np.array_equal(answer, payload.expected):
        raise BenchmarkError(f"{payload.model} answered {answer}, expected {payload.expected}")


def _check_embeddings(client: Any, wire: Any, model: str) -> None:
    """Two sentences must give two different, finite vectors."""
    texts = np.array([[text.encode()] for text in sample_texts(2)], dtype=np.object_)
    answer = _infer(client, wire, model, "TEXT", texts, "BYTES")
    name = answer.get_response().outputs[0].name
    rows = answer.as_numpy(name)
    if rows.shape[0] != len(texts) or not np.isfinite(rows).all() or np.allclose(rows[0], rows[1]):
        raise BenchmarkError(f"{model} answered {rows.shape} {rows}: not an embedding a sentence")


def _infer(
    client: Any, wire: Any, model: str, name: str, values: npt.NDArray[Any], datatype: str
) -> Any:
    tensor = wire.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return client.infer(model, [tensor])
