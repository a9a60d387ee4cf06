"""Names that attackers choose: paths out of the repository, control characters for logs and terminals, and what errors
tell. On both fronts, over both protocols."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import grpc
import pytest

from attacks import GOOD, bystander, exchange, post
from grpc_calls import failure, infer_request, pb
from served import Served, json_request

pytestmark = pytest.mark.e2e

ESCAPES: Final = (
    "..",
    "../..",
    "../../etc",
    "..\\..\\etc",
    "/etc",
    "a/../../etc",
    ".",
    "a\0b",
    "...",
    "\uff5e",
    "\uff0e\uff0e",
    "\u2025",
)
FAKE: Final = (
    "x\r\n2026-11-28T00:00:00.000Z ERROR   penstock: forged\x1b[2J\x1b]0;owned\x07\u2028\x85"
)
"""Would be a line of ours, and clear the terminal that shows it."""


@pytest.fixture(scope="module")
def rpc_channel(victim: Served) -> Iterator[grpc.Channel]:
    """To the victim."""
    with grpc.insecure_channel(victim.grpc) as channel:
        yield channel


@pytest.fixture(autouse=True)
def others(victim: Served) -> Iterator[None]:
    """A polite client is there throughout."""
    with bystander(victim):
        yield


# ── out of the repository ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_lead_out_of_the_repository(
    victim: Served, rpc_channel: grpc.Channel, name: str
) -> None:
    for once in (quote(name, safe=""), quote(quote(name, safe=""), safe="")):
        for path in (
            f"/v2/models/{once}",
            f"/v2/models/{once}/versions/1",
            f"/v2/models/puppet/versions/{once}",
        ):
            answer = victim.get(path)
            # dots lead to another route of ours, where they are taken for a path
            assert 400 <= answer.status < 500 or (name in (".", "..") and answer.status == 200)
        for path in (f"/v2/repository/models/{once}/load", f"/v2/repository/models/{once}/unload"):
            assert victim.request("POST", path, b"{}").status != 500, path
    path_bytes = b"/v2/models/" + name.encode() + b"/infer"
    raw = exchange(victim.settings.http_port, post(b"{}", b"Content-Length: 2", path=path_bytes))
    assert not raw.startswith(b"HTTP/1.1 200")
    for rpc, request in (
        ("ModelInfer", infer_request(name)),
        ("ModelInfer", infer_request(model_version=name)),
        ("ModelConfig", pb.ModelConfigRequest(name=name)),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name)),
    ):
        code, text = failure(rpc_channel, rpc, request)
        assert code in ("NOT_FOUND", "INVALID_ARGUMENT"), (rpc, text)
    assert name not in {model for model, _ in victim.index()}


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/etc/passwd",
            "../../evil",
            "1/../../evil",
            "1/../../../evil",
            "./../evil",
            "1//evil",
            "1/./evil",
        ),
        *(
            "",
            "1/",
            "a\0b",
            "x" * 300,
            "/".join("d" * 20),
            "file:///etc/passwd",
            "http://169.254.169.254/latest",
        ),
    ],
)
def test_files_of_a_load_stay_in_its_folder(
    victim: Served, rpc_channel: grpc.Channel, path: str, tmp_path: Path
) -> None:
    before = sorted(str(each) for each in victim.run_dir.rglob("*"))
    config = '{"backend": "python"}'
    key = f"file:{path}"
    body = {"parameters": {"config": config, key: b64encode(b"evil").decode()}}
    answer = victim.request("POST", "/v2/repository/models/puppet/load", body)
    assert answer.status == 400, answer.body
    request = pb.RepositoryModelLoadRequest(model_name="puppet")
    request.parameters["config"].string_param = config
    request.parameters[key].bytes_param = b"evil"
    assert failure(rpc_channel, "RepositoryModelLoad", request)[0] == "INVALID_ARGUMENT"
    assert sorted(str(each) for each in victim.run_dir.rglob("*")) == before


@pytest.mark.parametrize("label", ["/etc/passwd", "../../../../etc/passwd", "../puppet/1/model.py"])
def test_files_that_a_configuration_names_stay_in_its_folder(victim: Served, label: str) -> None:
    output = {"name": "Y", "data_type": "TYPE_FP32", "dims": [4], "label_filename": label}
    tensor = {"name": "X", "data_type": "TYPE_FP32", "dims": [4]}
    config = {"backend": "onnxruntime", "max_batch_size": 4, "input": [tensor], "output": [output]}
    body = {"parameters": {"config": json.dumps(config)}}
    answer = victim.request("POST", "/v2/repository/models/classes/load", body)
    assert answer.status == 400, answer.body
    assert "root:" not in answer.error


# ── into logs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_that_would_be_lines_of_the_log(victim: Served, rpc_channel: grpc.Channel) -> None:
    """Model names, versions, ids, parameters, load keys: whatever is logged of them is one line, without control
    characters."""
    encoded = quote(FAKE, safe="")
    victim.request("POST", f"/v2/repository/models/{encoded}/load", b"{}")
    victim.request("POST", f"/v2/models/{encoded}/infer", GOOD)
    victim.infer("puppet", json_request(1.0, id=FAKE, parameters={"raise": FAKE}))
    victim.infer("puppet", json_request(1.0, parameters={FAKE: FAKE}))
    failure(rpc_channel, "ModelInfer", infer_request(FAKE))
    failure(rpc_channel, "ModelInfer", infer_request(parameters={"raise": FAKE}))
    failure(rpc_channel, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=FAKE))
    log = victim.log
    assert not re.search(r"^2026-11-28T00:00:00.000Z ERROR   penstock: forged", log, re.MULTILINE)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", log), "control characters"


def test_names_that_would_be_headers_of_the_answer(victim: Served) -> None:
    encoded = quote("x\r\nset-cookie: a=b\r\n\r\n<script>", safe="")
    answer = victim.get(f"/v2/models/{encoded}")
    assert 400 <= answer.status < 500
    assert "set-cookie" not in answer.headers
    assert answer.headers.get("content-type", "application/json") == "application/json"


# ── errors tell nothing of the machine ──────────────────────────────────────────────────────────────────────────────


def inner(victim: Served) -> re.Pattern[str]:
    """What no error may have in it."""
    texts = [
        *(str(path) for path in victim.settings.model_repository),
        *(
            str(victim.folder),
            str(victim.run_dir),
            str(Path.home()) + "/",
            sys.prefix,
            sys.base_prefix,
        ),
        *("Traceback (most", "site-packages", 'File "', "overrides/"),
    ]
    return re.compile("|".join(map(re.escape, texts)) + r"|\bpenstock\.[a-z_]+\.|0x[0-9a-f]{8}")


def load(
    victim: Served, rpc_channel: grpc.Channel, model: str, config: str = "", **files: str
) -> list[str]:
    """The errors of a load, over both protocols. `files`: of version 1, with `_` for the dot."""
    given = {f"file:1/{name.replace('_', '.')}": text.encode() for name, text in files.items()}
    body = {name: b64encode(content).decode() for name, content in given.items()}
    if config:
        body["config"] = config
    path = f"/v2/repository/models/{model}/load"
    answer = victim.request("POST", path, {"parameters": body})
    request = pb.RepositoryModelLoadRequest(model_name=model)
    if config:
        request.parameters["config"].string_param = config
    for name, content in given.items():
        request.parameters[name].bytes_param = content
    return [answer.error, failure(rpc_channel, "RepositoryModelLoad", request)[1]]


PYTHON: Final = '{"backend": "python", "max_batch_size": 0}'
TELLING: Final = """
import traceback, sys
try:
    open("/nowhere/at/all/secret.bin")
except OSError:
    raise RuntimeError(traceback.format_exc() + repr(sys.path) + repr(object())) from None
"""


def test_errors_of_loads(victim: Served, rpc_channel: grpc.Channel) -> None:
    onnx = '{"backend": "onnxruntime"}'
    texts = [
        *load(victim, rpc_channel, "nobody"),
        *load(victim, rpc_channel, "broken_config"),
        *load(victim, rpc_channel, "broken_onnx"),
        *load(victim, rpc_channel, "made", PYTHON, model_py=TELLING),
        *load(victim, rpc_channel, "made", PYTHON, model_py="import penstock.nothing"),
        *load(victim, rpc_channel, "made", PYTHON, other="x"),
        *load(victim, rpc_channel, "made", onnx, model_onnx="x"),
        *load(victim, rpc_channel, "made", '{"backend": "nothing"}', model_py="x"),
        *load(victim, rpc_channel, "made", '{"bac', model_py="x"),
    ]
    assert len(set(texts)) > 8, texts
    found = {text for text in texts if inner(victim).search(text)}
    assert not found
    # what was left out is in the log, under what the client was told
    references = re.findall(r"\[([0-9a-f]{8}) in the server's log\]", "\n".join(texts))
    assert references
    assert all(
        f"[{reference}] a client was told less than: " in victim.log for reference in references
    )


def test_errors_of_models(victim: Served, rpc_channel: grpc.Channel) -> None:
    """The words are the model's own business; the machine is not."""
    said = [
        f"can't open {victim.run_dir}/x",
        f"[Errno 2] No such file or directory: '{Path.home()}/weights.bin'",
        'Traceback (most recent call last): File "/srv/m/1/model.py", line 3, in f ValueError: x',
        "<penstock.workers.streams.ResponseStream object at 0x7f0011223344>",
        f"{sys.prefix}/lib/python3/site-packages/x.py",
    ]
    for text in said:
        for parameters in ({"raise": text}, {"error": text}):
            answer = victim.infer("puppet", json_request(1.0, parameters=parameters))
            assert answer.status == 500
            assert not inner(victim).search(answer.error), answer.error
            code, told = failure(rpc_channel, "ModelInfer", infer_request(parameters=parameters))
            assert code == "INTERNAL"
            assert not inner(victim).search(told), told
    plain = victim.infer("puppet", json_request(1.0, parameters={"error": "no such user"}))
    assert plain.error == "no such user"


def test_errors_of_everything_else(victim: Served, rpc_channel: grpc.Channel) -> None:
    bodies: list[bytes | dict[str, Any]] = [
        b"\xff",
        b"{",
        b"[]",
        {"a": 1},
        {"trace_file": "/nowhere/x"},
    ]
    bodies += [
        {"log_file": "/nowhere/at/all"},
        {"log_file": 1},
        {"key": "/nowhere", "byte_size": 1},
        {"parameters": 1},
    ]
    paths = [
        *(
            "/v2/trace/setting",
            "/v2/logging",
            "/v2/repository/index",
            "/v2/models/puppet/infer",
            "/v2/nothing",
        ),
        *(
            "/v2/models/puppet/generate",
            "/v1/models/puppet:predict",
            "/v2/systemsharedmemory/region/x/register",
        ),
        *(
            "/v2/models/puppet/versions/x/infer",
            "/v2/cudasharedmemory/region/x/register",
            "/metrics",
            "/models",
        ),
    ]
    found = []
    for path in paths:
        for body in bodies:
            answer = victim.request("POST", path, body)
            if answer.status >= 400 and inner(victim).search(answer.body.decode()):
                found.append((path, body, answer.body))
    for rpc in (
        "ModelInfer",
        "ModelConfig",
        "RepositoryModelLoad",
        "TraceSetting",
        "LogSettings",
        "Nothing",
    ):
        _, text = failure(rpc_channel, rpc, b"\xff\xff")
        if inner(victim).search(text):
            found.append((rpc, b"", text.encode()))
    assert not found
