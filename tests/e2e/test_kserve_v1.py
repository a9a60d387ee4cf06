"""KServe's V1 protocol, over both fronts."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest

from served import HttpAnswer, Served

pytestmark = [pytest.mark.e2e, pytest.mark.extension("kserve_v1")]


def predict(server: Served, model: str, body: Any, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body)
    return server.request("POST", f"/v1/models/{model}:predict", data, named)


def test_models(server: Served) -> None:
    names = server.get("/v1/models").json["models"]
    assert "puppet" in names and names == sorted(names)
    assert "broken_init" not in names
    answer = server.get("/v1/models/puppet")
    assert (answer.status, answer.json) == (200, {"name": "puppet", "ready": True})


def test_models_that_are_not_ready_or_not_there(server: Served) -> None:
    for answer in (server.get("/v1/models/broken_init"), predict(server, "broken_init", {})):
        assert (answer.status, answer.error) == (503, "Model with name broken_init is not ready.")
    for answer in (server.get("/v1/models/nobody"), predict(server, "nobody", {})):
        assert (answer.status, answer.error) == (404, "Model with name nobody does not exist.")


def test_rows(server: Served) -> None:
    answer = predict(server, "bare", {"instances": [[1, 2, 3], [4, 5, 6.5]]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"predictions": [[1, 2, 3], [4, 5, 6.5]]}


def test_whole_tensors(server: Served) -> None:
    answer = predict(server, "bare", {"inputs": {"X": [[1, 2, 3]]}})
    assert answer.json == {"predictions": [[1, 2, 3]]}


def test_several_inputs_and_outputs(server: Served) -> None:
    row = {"INPUT0": [1, 2, 3, 4], "INPUT1": [1, 1, 1, 1]}
    summed, less = [2, 3, 4, 5], [0, 1, 2, 3]
    expected = {"predictions": [{"OUTPUT0": summed, "OUTPUT1": less}]}
    assert predict(server, "add_sub", {"instances": [row]}).json == expected
    assert predict(server, "add_sub", {"inputs": row}).json == expected


def test_texts_and_bytes(server: Served) -> None:
    body = {"instances": ["grüße", {"b64": "AP8="}]}
    assert predict(server, "text", body).json == {"predictions": [["grüße"], [{"b64": "AP8="}]]}


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "INT8", "UINT64", "BOOL"])
def test_datatypes(server: Served, datatype: str) -> None:
    values = [[False, True]] if datatype == "BOOL" else [[0, 100]]
    instances = [{f"X_{datatype}": row} for row in values]
    (found,) = predict(server, "types", {"instances": instances}).json["predictions"]
    assert (found[f"Y_{datatype}"] if isinstance(found, dict) else found) == values[0]


def test_a_version(server: Served) -> None:
    for version, status in (("1", 200), ("3", 200), ("2", 404)):
        path = f"/v1/models/every/versions/{version}:predict"
        assert server.request("POST", path, {"instances": [[1]]}).status == status


def test_large_and_compressed_bodies(server: Served) -> None:
    rows = np.random.default_rng(0).random((4, 40_000)).tolist()
    body = json.dumps({"instances": rows}).encode()
    assert len(body) > 2 << 20
    answer = predict(
        server,
        "steady",
        gzip.compress(body, 1),
        content_encoding="gzip",
        accept_encoding="gzip",
    )
    assert answer.headers["content-encoding"] == "gzip"
    found = json.loads(gzip.decompress(answer.body))["predictions"]
    np.testing.assert_allclose(found, rows, rtol=1e-6)


def test_errors(server: Served) -> None:
    bad = predict(server, "bare", {"instances": [[1, 2]]})
    assert (bad.status, bad.json.keys()) == (400, {"error"})
    assert (
        "unexpected shape for input 'X' for model 'bare'. Expected [-1,3], got [1,2]" in bad.error
    )
    assert predict(server, "bare", b"{").error.startswith("Unrecognized request format")
    assert "got neither" in predict(server, "bare", {}).error
    late = predict(server, "bare", {"instances": [[1, 2, 3]]}, x_request_timeout_ms="none")
    assert late.status == 400
    assert server.request("GET", "/v1/models/bare:predict").status == 405
    assert server.request("POST", "/v1/models/bare:explain").status == 501
    assert server.request("POST", "/v1/models/bare:classify").status == 405


def test_it_counts_as_any_other_inference(server: Served) -> None:
    before = server.statistics("bare")["inference_stats"]["success"]["count"]
    assert predict(server, "bare", {"instances": [[1, 2, 3]]}).status == 200
    assert server.statistics("bare")["inference_stats"]["success"]["count"] == before + 1
