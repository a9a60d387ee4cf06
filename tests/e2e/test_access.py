"""What a caller may do and may know, through real clients of both protocols on both fronts: each of these callers has
an API key of another role, and what one may not do is refused with the same words whether it exists or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from browser import browser, chromium
from served import FRONTS, Served
from served_models import write_add_sub
from tenant_commands import tenants

pytestmark = pytest.mark.e2e

ROLES: Final = """
[access]
mode = "required"
tenants_file = "tenants.db"
[access.roles.team]
verbs = ["infer", "read_metadata", "read_statistics"]
models = ["add_*", "no_such_add"]
"""
BODY: Final = {
    "inputs": [
        {"name": name, "datatype": "FP32", "shape": [4], "data": [1, 1, 1, 1]}
        for name in ("INPUT0", "INPUT1")
    ]
}


class Secured:
    """A server with two models, and callers of several roles."""

    def __init__(self, folder: Path, front: str) -> None:
        for model in ("add_sub", "secret"):
            write_add_sub(folder / "models" / model)
        (folder / "penstock.toml").write_text(ROLES)
        config = f"--config={folder / 'penstock.toml'}"
        tenants("create", "acme", config)
        self.keys = {
            role: tenants("key", "create", "acme", "--role", role, config).strip()
            for role in ("team", "user", "monitor", "operator", "admin")
        }
        self.served = Served(
            folder / "models",
            front,
            config,
            "--model-control-mode=explicit",
            "--load-model=*",
        )

    def http(self, method: str, path: str, role: str = "", body: Any = None) -> tuple[int, Any]:
        """Status and body, for a caller of that role, or one without a credential."""
        headers = {"x-api-key": self.keys[role]} if role else {}
        answer = self.served.request(method, path, body, headers)
        return answer.status, answer.json if answer.body else None


@pytest.fixture(scope="module", params=FRONTS)
def secured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"), request.param)
    try:
        made.served.wait_ready()
        yield made
    finally:
        made.served.close()


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────

OF_A_MODEL: Final[tuple[tuple[str, str, Any], ...]] = (
    ("GET", "/v2/models/{}", None),
    ("GET", "/v2/models/{}/versions/1", None),
    ("GET", "/v2/models/{}/versions/99", None),
    ("GET", "/v2/models/{}/ready", None),
    ("GET", "/v2/models/{}/config", None),
    ("GET", "/v2/models/{}/stats", None),
    ("GET", "/v2/models/{}/explain", None),
    ("POST", "/v2/models/{}/infer", BODY),
    ("POST", "/v2/models/{}/versions/99/infer", BODY),
    ("POST", "/v2/models/{}/infer", "not even JSON"),
    ("POST", "/v2/models/{}/generate", {}),
    ("POST", "/v2/models/{}/generate_stream", {}),
    ("GET", "/v1/models/{}", None),
    ("POST", "/v1/models/{}:predict", {"instances": []}),
    ("POST", "/v2/repository/models/{}/load", {}),
    ("POST", "/v2/repository/models/{}/unload", {}),
    ("GET", "/v2/models/{}/trace/setting", None),
)


@pytest.mark.parametrize(("method", "path", "body"), OF_A_MODEL)
def test_what_is_refused_does_not_tell_whether_it_exists(
    secured: Secured, method: str, path: str, body: Any
) -> None:
    there = secured.http(method, path.format("secret"), "team", body)
    not_there = secured.http(method, path.format("seeret"), "team", body)
    assert there[0] == not_there[0] == 403
    assert json.dumps(there[1]).replace("secret", "seeret") == json.dumps(not_there[1])
    assert secured.http(method, path.format("secret"), "", body)[0] == 401
    assert secured.http(method, path.format("seeret"), "", body)[0] == 401


def test_what_is_allowed_works(secured: Secured) -> None:
    status, answer = secured.http("POST", "/v2/models/add_sub/infer", "team", BODY)
    assert status == 200
    assert answer["outputs"][0]["data"] == [2, 2, 2, 2]
    assert secured.http("GET", "/v2/models/add_sub/config", "team")[0] == 200
    # one that it may run, and is not there: that it may know
    status, answer = secured.http("POST", "/v2/models/no_such_add/infer", "team", BODY)
    assert status == 404


def test_lists_hold_what_the_caller_may_know_of(secured: Secured) -> None:
    both, own = ["add_sub", "secret"], ["add_sub"]
    for role, expected in (("team", own), ("user", both)):
        assert secured.http("GET", "/v2/models", role)[1] == {"models": expected}
        assert secured.http("GET", "/v1/models", role)[1] == {"models": expected}
        index = secured.http("POST", "/v2/repository/index", role)[1]
        assert [line["name"] for line in index] == expected
        paths = secured.http("GET", "/openapi.json", role)[1]["paths"]
        assert ("/v2/models/secret/infer" in paths) == (expected == both)
        assert "/v2/models/add_sub/infer" in paths
    for role, expected in (("team", own), ("monitor", both)):
        stats = secured.http("GET", "/v2/models/stats", role)[1]["model_stats"]
        assert sorted(each["name"] for each in stats) == expected


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2", {"team", "user", "monitor", "operator", "admin"}),
        ("GET", "/v2/logging", {"operator", "admin"}),
        ("POST", "/v2/logging", {"operator", "admin"}),
        ("GET", "/v2/trace/setting", {"operator", "admin"}),
        ("GET", "/v2/tenants", {"admin"}),
        ("GET", "/v2/models/secret/stats", {"monitor", "operator", "admin"}),
        ("POST", "/v2/repository/models/secret/load", {"operator", "admin"}),
    ],
)
def test_roles(secured: Secured, method: str, path: str, allowed: set[str]) -> None:
    body: dict[str, Any] | None = {} if method == "POST" else None
    found = {role: secured.http(method, path, role, body)[0] for role in secured.keys}
    assert found == {role: 200 if role in allowed else 403 for role in secured.keys}


def test_the_metrics_port_asks_too(secured: Secured) -> None:
    served = secured.served
    port = served.settings.metrics_port
    found = {
        role: served.request("GET", "/metrics", None, headers, port).status
        for role, headers in (
            ("", {}),
            *((role, {"x-api-key": key}) for role, key in secured.keys.items()),
        )
    }
    assert found == {
        "": 401,
        "team": 403,
        "user": 403,
        "monitor": 200,
        "operator": 200,
        "admin": 200,
    }


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", "/docs"]
)
def test_what_is_public(secured: Secured, path: str) -> None:
    assert secured.served.get(path).status == 200


def test_a_route_that_is_not_there_is_not_told_to_strangers(secured: Secured) -> None:
    assert secured.http("GET", "/no/such/route")[0] == 401
    assert secured.http("GET", "/no/such/route", "user")[0] == 404


def test_a_401_says_how_to_come_in(secured: Secured) -> None:
    answer = secured.served.get("/v2/models")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="penstock"'
    assert answer.error.startswith("no credential: expected an API key or a JWT")


@pytest.mark.parametrize("path", ["/v2/models/add_sub/infer", "/v2/repository/models/a/load"])
def test_a_strangers_body_is_not_waited_for(secured: Secured, path: str) -> None:
    """Only the head of the request is sent."""
    connection = secured.served._connection(secured.served.settings.http_port)
    try:
        connection.putrequest("POST", path)
        connection.putheader("content-length", "1000000")
        connection.endheaders()
        assert connection.getresponse().status == 401
    finally:
        connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-penstock-tenant": "acme"},
        {"x-forwarded-client-cert": "URI=spiffe://example.org/acme"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer psk_aaaaaaaa_bbbb"},
        {"authorization": "Basic YTpi"},
        {"x-api-key": "'; drop table tenants; --"},
        {"x-api-key": "\xff\xfe"},
    ],
)
def test_what_is_no_credential(secured: Secured, headers: dict[str, str]) -> None:
    assert secured.served.request("GET", "/v2/models", None, headers).status == 401


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
@pytest.mark.parametrize("order", [1, -1])
def test_one_of_two_credentials_is_not_chosen(secured: Secured, header: str, order: int) -> None:
    """Of the same name: a proxy may have looked at the other one."""
    scheme = "Bearer " if header == "authorization" else ""
    values = [f"{scheme}psk_aaaaaaaa_bbbb", f"{scheme}{secured.keys['admin']}"][::order]
    connection = secured.served._connection(secured.served.settings.http_port)
    try:
        connection.putrequest("GET", "/v2/models")
        for value in values:
            connection.putheader(header, value)
        connection.endheaders()
        assert connection.getresponse().status == 401
    finally:
        connection.close()
    with grpc.insecure_channel(secured.served.grpc) as channel:
        for rpc in ("ServerMetadata", "ModelInfer", "ModelStreamInfer"):
            ask = channel.unary_stream(f"/inference.GRPCInferenceService/{rpc}")
            with pytest.raises(grpc.RpcError) as refused:
                list(ask(b"", metadata=tuple((header, value) for value in values), timeout=30))
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_repository_that_is_not_there_shows_no_path(secured: Secured) -> None:
    status, answer = secured.http("POST", "/v2/repository/nowhere/index", "team")
    assert status == 404
    assert answer["error"].endswith("this server has models")


# ── over gRPC ───────────────────────────────────────────────────────────────────────────────────────────────────────

CALLS: Final[dict[str, Callable[[Any, str, dict[str, str]], object]]] = {
    "ModelReady": lambda c, m, h: c.is_model_ready(m, headers=h),
    "ModelMetadata": lambda c, m, h: c.get_model_metadata(m, headers=h),
    "ModelConfig": lambda c, m, h: c.get_model_config(m, headers=h),
    "ModelStatistics": lambda c, m, h: c.get_inference_statistics(m, headers=h),
    "ModelInfer": lambda c, m, h: c.infer(m, _inputs(tritonclient.grpc), headers=h),
    "RepositoryModelLoad": lambda c, m, h: c.load_model(m, headers=h),
    "RepositoryModelUnload": lambda c, m, h: c.unload_model(m, headers=h),
    "TraceSetting": lambda c, m, h: c.get_trace_settings(m, headers=h),
}


def _inputs(kind: Any) -> list[Any]:
    inputs = []
    for name in ("INPUT0", "INPUT1"):
        tensor = kind.InferInput(name, [4], "FP32")
        tensor.set_data_from_numpy(np.ones(4, np.float32))
        inputs.append(tensor)
    return inputs


@pytest.mark.parametrize("call", CALLS)
def test_what_is_refused_over_grpc_does_not_tell_whether_it_exists(
    secured: Secured, call: str
) -> None:
    def error(model: str, role: str) -> tuple[str, str]:
        headers = {"authorization": f"Bearer {secured.keys[role]}"} if role else {}
        with pytest.raises(InferenceServerException) as caught:
            CALLS[call](client, model, headers)
        return str(caught.value.status()), caught.value.message().replace(model, "M")

    with tritonclient.grpc.InferenceServerClient(secured.served.grpc) as client:
        there, not_there = error("secret", "team"), error("seeret", "team")
        assert there == not_there
        assert there[0] == "StatusCode.PERMISSION_DENIED"
        assert error("secret", "")[0] == "StatusCode.UNAUTHENTICATED"


def test_lists_over_grpc(secured: Secured) -> None:
    with tritonclient.grpc.InferenceServerClient(secured.served.grpc) as client:
        for role, expected in (("team", ["add_sub"]), ("operator", ["add_sub", "secret"])):
            headers = {"x-api-key": secured.keys[role]}
            index: Any = client.get_model_repository_index(headers=headers)
            assert [line.name for line in index.models] == expected
            stats: Any = client.get_inference_statistics(headers=headers)
            assert sorted(each.name for each in stats.model_stats) == expected
        assert client.is_server_live()
        assert client.is_server_ready()


def test_health_of_a_model_is_for_those_who_may_know_it(secured: Secured) -> None:
    with grpc.insecure_channel(secured.served.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        # field 1, a text
        assert check(b"") == b"\x08\x01"
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("x-api-key", secured.keys["team"]),), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                check(b"\x0a\x06secret", metadata=metadata)
            assert caught.value.code() == code
        assert (
            check(b"\x0a\x06secret", metadata=(("x-api-key", secured.keys["user"]),)) == b"\x08\x01"
        )


def test_an_rpc_that_is_not_there_is_not_told_to_strangers(secured: Secured) -> None:
    with grpc.insecure_channel(secured.served.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/NoSuchThing")
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("x-api-key", secured.keys["team"]),), grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=metadata)
            assert caught.value.code() == code


def test_each_request_of_a_stream_is_looked_at(secured: Secured) -> None:
    found: list[tuple[Any, Any]] = []
    with tritonclient.grpc.InferenceServerClient(secured.served.grpc) as client:
        headers = {"authorization": f"Bearer {secured.keys['team']}"}
        client.start_stream(lambda result, error: found.append((result, error)), headers=headers)
        for model in ("add_sub", "secret", "seeret", "add_sub"):
            client.async_stream_infer(model, _inputs(tritonclient.grpc))
        client.stop_stream()
    texts = [error and error.message() for _, error in found]
    refused = "not allowed: infer of model '{}'"
    assert texts == [None, refused.format("secret"), refused.format("seeret"), None]


# ── what a person sees ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(chromium() is None, reason="needs Debian's package chromium: .ci/run has it")
def test_the_page_asks_for_a_key(secured: Secured) -> None:
    box = "document.querySelector('details[data-words*=\"/v2/models/add_sub/infer\"]')"
    with browser() as page:
        page.open(f"http://{secured.served.http}/docs")
        page.wait_for("document.querySelector('#credential:not([hidden])') !== null")
        key = secured.keys["user"]
        page.run(f"document.querySelector('#credential input').value = {json.dumps(key)}")
        page.run("document.querySelector('#credential button').click()")
        page.wait_for(f"{box} !== null")
        page.run(f"{box}.querySelector('summary').click()")
        page.wait_for(f"{box}.querySelector('textarea') !== null")
        page.run(f"{box}.querySelector('button').click()")
        page.wait_for(f"{box}.querySelector('.good, .bad') !== null")
        assert page.run(f"{box}.querySelector('.good').textContent").startswith("200 ")
        assert key not in page.run("document.body.textContent")
