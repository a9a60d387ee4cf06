"""`/openapi.json` describes what is there and nothing else, and `/docs` shows it in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from browser import browser, chromium
from served import FRONTS, Served
from served_models import PUPPET, own, write_add_sub, write_model
from stateful_models import write_tally

pytestmark = [pytest.mark.e2e, pytest.mark.extension("openapi")]

Document = dict[str, Any]

PROTOCOL: Final = {
    *("GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/stats"),
    *("GET /v2/models/{model}", "GET /v2/models/{model}/ready", "GET /v2/models/{model}/config"),
    *("GET /v2/models/{model}/stats", "POST /v2/models/{model}/infer"),
    *(
        "GET /v2/models/{model}/versions/{version}",
        "POST /v2/models/{model}/versions/{version}/infer",
    ),
    *("GET /v2/trace/setting", "POST /v2/trace/setting", "GET /v2/models/{model}/trace/setting"),
    *("GET /v2/logging", "POST /v2/logging", "POST /v2/repository/index"),
    *("POST /v2/repository/models/{model}/load", "POST /v2/repository/models/{model}/unload"),
    *("GET /v2/systemsharedmemory/status", "POST /v2/systemsharedmemory/region/{region}/register"),
    *("POST /v2/cudasharedmemory/unregister", "GET /metrics", "GET /livez", "GET /openapi.json"),
    *("POST /v1/models/{model}:predict", "GET /docs", "GET /ping", "POST /models/{model}/invoke"),
    *("POST /v1/models/{model}/versions/{version}:predict", "GET /health", "POST /predict"),
}
"""What must be there: routes of the protocol, and those of every other port."""


@pytest.fixture(scope="module", params=FRONTS)
def doors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """All ports, few models."""
    folder = tmp_path_factory.mktemp("models")
    write_add_sub(folder / "add_sub")
    write_model(folder / "puppet", "puppet", f"max_batch_size: 8\n{PUPPET}\n{own(slo_p99_ms=200)}")
    write_model(
        folder / "odd {name}",
        "mirror",
        'input [ { name: "X" data_type: TYPE_BF16 dims: [ 2 ] } ]'
        ' output [ { name: "Y" data_type: TYPE_BF16 dims: [ 2 ] } ]',
    )
    write_model(folder / "countdown", "countdown", None)
    write_tally(folder / "tally", "direct { }")
    served = Served(
        folder,
        str(request.param),
        *("--allow-sagemaker", "--sagemaker-port=0", "--allow-vertex-ai", "--vertex-ai-port=0"),
        *("--vertex-ai-predict-route=/predict", "--vertex-ai-health-route=/health"),
        "--vertex-ai-default-model=add_sub",
    )
    try:
        yield served.wait_ready()
    finally:
        served.close()


@pytest.fixture(scope="module")
def document(doors: Served) -> Document:
    answer = doors.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return dict(answer.json)


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Method, path, operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_it_is_valid(document: Document) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_it_has_the_whole_protocol(document: Document) -> None:
    assert {f"{method} {path}" for method, path, _ in operations(document)} >= PROTOCOL


def test_everything_it_describes_is_there(doors: Served, document: Document) -> None:
    """A wrong method is refused with the methods that are described: so there are no others, either."""
    for path, item in document["paths"].items():
        port = 0
        for operation in item.values():
            for server in operation.get("servers", ()):
                port = int(server["url"].rsplit(":", 1)[1])
        concrete = path.replace("{", "").replace("}", "")
        answer = doors.request("PATCH", concrete, port=port)
        assert answer.status == 405, (path, answer)
        if "odd" not in path and "add_sub" not in path and "puppet" not in path:
            described = {method.upper() for method in item}
            assert set(answer.headers["allow"].split(", ")) == described, path


def test_every_description_is_complete(document: Document) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"] and operation["tags"], (method, path)
        assert operation["responses"], (method, path)
        named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert named == {part.split("}")[0] for part in path.split("{")[1:]}, path


def test_plain_answers_are_as_described(doors: Served, document: Document) -> None:
    for method, path, operation in operations(document):
        if method != "GET" or "{" in path or "servers" in operation:
            continue
        answer = doors.get(path)
        assert str(answer.status) in operation["responses"], (path, answer)
        content = operation["responses"]["200"].get("content", {}) if answer.status == 200 else {}
        if "application/json" in content:
            check(answer.json, content["application/json"]["schema"], document)


def test_a_models_inputs_can_be_seen(document: Document) -> None:
    operation = document["paths"]["/v2/models/puppet/infer"]["post"]
    assert operation["x-inputs"] == [
        {"name": "X", "datatype": "FP32", "shape": [-1, -1], "optional": False}
    ]
    assert [output["datatype"] for output in operation["x-outputs"]] == ["FP32", "BYTES"]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        *product(("add_sub", "puppet"), ("/v2/models/{}/infer", "/v1/models/{}:predict")),
        ("tally", "/v2/models/{}/infer"),
    ],
)
def test_a_models_example_is_taken_and_its_answer_as_described(
    doors: Served, document: Document, path: str, model: str
) -> None:
    operation = document["paths"][path.format(model)]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    check(body["example"], body["schema"], document)
    answer = doors.request("POST", path.format(model), body["example"])
    assert answer.status == 200, answer
    check(
        answer.json,
        operation["responses"]["200"]["content"]["application/json"]["schema"],
        document,
    )


def test_a_decoupled_model_has_the_paths_that_answer(doors: Served, document: Document) -> None:
    for path in ("/v2/models/countdown/infer", "/v1/models/countdown:predict"):
        assert path not in document["paths"]
    path = "/v2/models/countdown/generate_stream"
    operation = document["paths"][path]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    check({**body["example"], "FROM": 2}, body["schema"], document)
    answer = doors.request("POST", path, {**body["example"], "FROM": 2})
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line]
    assert [event["N"] for event in events] == [2, 1]
    ((media_type, described),) = operation["responses"]["200"]["content"].items()
    assert answer.headers["content-type"].startswith(media_type)
    for event in events:
        check(event, described["schema"], document)


def test_a_models_schema_refuses_what_the_model_refuses(document: Document) -> None:
    content = document["paths"]["/v2/models/add_sub/infer"]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    for change in ({"datatype": "FP64"}, {"name": "Z"}, {"shape": [1]}, {"data": ["x"]}):
        body = json.loads(json.dumps(content["application/json"]["example"]))
        body["inputs"][0] |= change
        with pytest.raises(jsonschema.ValidationError):
            check(body, schema, document)


def test_a_model_that_json_can_not_feed(document: Document) -> None:
    operation = document["paths"]["/v2/models/odd%20%7Bname%7D/infer"]["post"]
    assert "example" not in operation["requestBody"]["content"]["application/json"]
    assert unquote("/v2/models/odd%20%7Bname%7D/infer") not in document["paths"]


def check(value: Any, schema: Document, document: Document) -> None:
    """The value against a schema of the document."""
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(
        value
    )


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_needs_nothing_from_elsewhere(doors: Served) -> None:
    for path in ("/docs", "/docs/", "/docs/docs.js", "/docs/docs.css"):
        answer = doors.get(path)
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert b"://" not in answer.body
    assert doors.get("/docs/secret").error == "unknown route /docs/secret"


@pytest.mark.skipif(chromium() is None, reason="needs Debian's package chromium: .ci/run has it")
def test_the_page_in_a_browser(doors: Served, tmp_path: Path) -> None:
    box = "document.querySelector('details[data-words*=\"/v2/models/puppet/infer\"]')"
    with browser() as page:
        page.open(f"http://{doors.http}/docs")
        page.wait_for(f"{box} !== null")
        assert page.run("document.title") == "Penstock: HTTP API"
        page.run(f"{box}.querySelector('summary').click()")
        page.wait_for(f"{box}.querySelector('textarea') !== null")
        assert "FP32" in page.run(f"{box}.querySelector('table').textContent")
        page.run(f"{box}.querySelector('button').click()")
        page.wait_for(f"{box}.querySelector('.good, .bad') !== null")
        assert page.run(f"{box}.querySelector('.good').textContent").startswith("200 ")
        assert '"model_name": "puppet"' in page.run(f"{box}.querySelector('pre').textContent")
        _filter(page, "nothing has this word")
        assert page.run("document.querySelectorAll('section:not([hidden])').length") == 0
        _filter(page, "PUPPET predict")
        shown = "[...document.querySelectorAll('section > details:not([hidden])')]"
        assert page.run(f"{shown}.map((each) => each.dataset.words)") == [
            "post /v1/models/puppet:predict run puppet"
        ]
        page.screenshot(tmp_path / "docs.png")
        assert page.console == []


def _filter(page: Any, words: str) -> None:
    page.run(
        "(() => { const field = document.getElementById('search');"
        f" field.value = {json.dumps(words)}; field.dispatchEvent(new Event('input')); }})()"
    )
