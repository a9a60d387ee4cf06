"""The generate extension over both fronts, of models that answer once."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from puppets import Gate, failures
from served import HttpAnswer, Served
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("generate")]

PATHS = ("generate", "generate_stream")
EVENTS = "text/event-stream; charset=utf-8"


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """What is asked of the model."""
    return str(request.param)


def generate(server: Served, model: str, path: str, body: Any, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("POST", f"/v2/models/{model}/{path}", body, named)


def answered(answer: HttpAnswer) -> dict[str, Any]:
    """The one response, in either form."""
    body = answer.body
    if answer.headers["content-type"] == EVENTS:
        assert body.startswith(b"data: ") and body.endswith(b"\n\n")
        assert body.count(b"\n") == 2
        body = body.removeprefix(b"data: ")
    else:
        assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = json.loads(body)
    return found


def test_text_in_text_out(server: Served, path: str) -> None:
    answer = generate(server, "text", path, {"id": "q", "X": "héllo"})
    assert answer.status == 200
    assert (answer.headers["content-type"] == EVENTS) is (path == "generate_stream")
    expected = {"id": "q", "model_name": "text", "model_version": "1", "Y": "héllo"}
    assert answered(answer) == expected


def test_a_version(server: Served, path: str) -> None:
    answer = generate(server, "every/versions/1", path, {"X": [1, 2.5]})
    expected = {"model_name": "every", "model_version": "1", "Y": [1.0, 2.5]}
    assert (answer.status, answered(answer)) == (200, expected)


def test_other_keys_reach_the_model_as_parameters(server: Served, path: str) -> None:
    flag = {"triton_enable_empty_final_response": True}
    body = {"X": 1.5, "seed": 7, "parameters": {"stream": False, "name": "x", **flag}}
    found = answered(generate(server, "puppet", path, body))
    assert (found["Y"], found["triton_final_response"]) == (1.5, True)
    told = json.loads(found["TOLD"])
    assert told["parameters"] == {"seed": 7, "stream": False, "name": "x"}


@pytest.mark.parametrize(
    ("model", "body", "headers", "status", "text"),
    [
        ("no_such_model", {}, {}, 404, "unknown model: 'no_such_model'"),
        ("text", {}, {}, 400, "expected 1 inputs but got 0 inputs"),
        ("text", {"X": 1}, {}, 400, "attempt to access JSON non-string as string"),
        ("text", "{", {}, 400, "failed to parse the request JSON buffer"),
        ("text", {"X": "a", "p": []}, {}, 400, "parameter 'p' has invalid type"),
        ("text", "", {"content_encoding": "gzip"}, 400, "only 'identity' is supported"),
        ("text", "", {"X_Request_Timeout_Ms": "x"}, 400, "X-Request-Timeout-Ms 'x' is none"),
    ],
)
def test_what_is_wrong_before_the_model_runs_is_plain_json(
    server: Served,
    path: str,
    model: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    text: str,
) -> None:
    answer = generate(server, model, path, body, **headers)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert text in answer.error


def test_an_error_of_the_model_decides_the_status(server: Served, path: str) -> None:
    body = {"X": 1, "error": "oh", "code": "UNAVAILABLE"}
    answer = generate(server, "puppet", path, body)
    assert (answer.status, answered(answer)) == (503, {"error": "oh"})


def test_wrong_methods_and_routes(server: Served, path: str) -> None:
    assert server.get(f"/v2/models/text/{path}").status == 405
    assert server.request("POST", f"/v2/models/text/x/{path}", b"{}").status == 404


def test_a_body_in_many_pieces(server: Served, path: str) -> None:
    text = "x" * 3_000_000
    found = answered(generate(server, "text", path, {"X": text}))
    assert found["Y"] == text


def test_one_connection_serves_many(server: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.settings.http_port, timeout=30)
    for number in range(6):
        path = PATHS[number % 2]
        connection.request("POST", f"/v2/models/text/{path}", json.dumps({"X": str(number)}))
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read().removeprefix(b"data: "))["Y"] == str(number)
    connection.close()


def test_a_client_that_leaves(
    server: Served, channel: grpc.Channel, tmp_path: Path, path: str
) -> None:
    before = failures(server, "puppet_alone", "CANCELED")
    with Gate(tmp_path, server, channel, "puppet_alone") as gate:
        connection = http.client.HTTPConnection("127.0.0.1", server.settings.http_port, timeout=30)
        connection.request("POST", f"/v2/models/puppet_alone/{path}", json.dumps({"X": 1}))
        gate.wait_arrived(2)
        connection.close()
        eventually(
            lambda: failures(server, "puppet_alone", "CANCELED") == before + 1,
            "the request is not cancelled",
        )


def test_a_time_out(server: Served, channel: grpc.Channel, tmp_path: Path, path: str) -> None:
    with Gate(tmp_path, server, channel, "puppet_alone"):
        answer = generate(server, "puppet_alone", path, {"X": 1}, X_Request_Timeout_Ms="100")
    assert answer.status == 504
    assert "Request timeout expired" in answered(answer)["error"]
