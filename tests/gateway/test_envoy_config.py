from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from penstock.config import Settings
from penstock.gateway import envoy_config as module
from penstock.gateway.envoy_config import EnvoyFiles, envoy_config
from penstock.gateway.grpc_service import INFERENCE, MODEL_INFER, MODEL_STREAM_INFER
from penstock.gateway.tls_files import TlsFiles
from penstock.tls_config import TlsSettings

FILES = EnvoyFiles(
    Path("/m.so"), "a:app", Path("/r/http.sock"), Path("/r/admin.sock"), TlsFiles(Path("/r/tls"))
)


def listener(settings: Settings) -> dict[str, Any]:
    (only,) = envoy_config(settings, FILES)["static_resources"]["listeners"]
    found: dict[str, Any] = only
    return found


def manager(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = listener(settings)["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def addresses(settings: Settings) -> list[Any]:
    found = listener(settings)
    return [found["address"], *(other["address"] for other in found["additional_addresses"])]


def test_one_listener_has_all_addresses() -> None:
    tcp = [{"socket_address": {"address": "::1", "port_value": port}} for port in (1, 2, 3)]
    pipe = {"pipe": {"path": "/r/http.sock", "mode": 0o600}}
    settings = Settings(host="::1", http_port=1, grpc_port=2, metrics_port=3)
    assert addresses(settings) == [*tcp, pipe]


def test_what_is_not_allowed_has_no_address() -> None:
    settings = Settings(allow_http=False, allow_metrics=False)
    first, second = addresses(settings)
    assert first["socket_address"]["port_value"] == 8001
    assert "pipe" in second
    assert len(addresses(Settings(allow_http=False, allow_grpc=False, allow_metrics=False))) == 1


def test_tls_is_the_same_on_all_addresses_and_the_supervisor_has_none() -> None:
    tls = TlsSettings(
        cert_file=Path("/c"), key_file=Path("/k"), client_ca_file=Path("/ca"), client_auth="require"
    )
    settings = Settings(tls=tls)
    assert all("socket_address" in address for address in addresses(settings))
    # a second chain of filters would be a second application
    (chain,) = listener(settings)["filter_chains"]
    config = chain["transport_socket"]["typed_config"]
    assert config["require_client_certificate"] is True
    common = config["common_tls_context"]
    assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_2"
    assert common["alpn_protocols"] == ["h2", "http/1.1"]
    (server,) = common["tls_certificate_sds_secret_configs"]
    source = server["sds_config"]["path_config_source"]
    assert source == {
        "path": "/r/tls/..data/sds-server.json",
        "watched_directory": {"path": "/r/tls"},
    }
    assert "transport_socket" not in listener(Settings())["filter_chains"][0]


@pytest.mark.parametrize("client_auth", ["none", "optional"])
def test_clients_that_need_no_certificate(client_auth: Literal["none", "optional"]) -> None:
    client_ca = None if client_auth == "none" else Path("/ca")
    tls = TlsSettings(
        cert_file=Path("/c"),
        key_file=Path("/k"),
        client_ca_file=client_ca,
        client_auth=client_auth,
        min_version="1.3",
    )
    chain = listener(Settings(tls=tls))["filter_chains"][0]
    config = chain["transport_socket"]["typed_config"]
    common = config["common_tls_context"]
    assert config["require_client_certificate"] is False
    assert ("validation_context_sds_secret_config" in common) == (client_auth == "optional")
    assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"


def test_guards_come_before_the_application() -> None:
    names = [part["name"].rpartition(".")[2] for part in manager(Settings())["http_filters"]]
    assert names == ["rbac", "header_mutation", "pyvoy"]


def test_an_exception_at_the_applications_start_is_not_ignored() -> None:
    pyvoy = manager(Settings())["http_filters"][-1]["typed_config"]
    options = json.loads(pyvoy["filter_config"]["value"])
    assert options["lifespan"] is True
    assert options["app"] == "a:app"


def test_the_access_log_is_off_unless_asked_for() -> None:
    assert "access_log" not in manager(Settings())
    assert len(manager(Settings(access_log=True))["access_log"]) == 1


def test_only_one_keeps_a_calls_deadline() -> None:
    """The application an inference's, Envoy that of the service's other calls, which are all unary."""
    assert (module.INFERENCE, module.MODEL_INFER) == (INFERENCE, MODEL_INFER)
    assert module.MODEL_STREAM_INFER == MODEL_STREAM_INFER
    (host,) = manager(Settings())["route_config"]["virtual_hosts"]
    kept = [(route["match"], "max_stream_duration" in route["route"]) for route in host["routes"]]
    assert kept == [
        ({"path": MODEL_INFER}, False),
        ({"path": MODEL_STREAM_INFER}, False),
        ({"prefix": INFERENCE}, True),
        ({"prefix": "/"}, False),
    ]


def test_cancelled_calls_are_bounded_by_their_rate_alone() -> None:
    """A connection dies with all its calls when there are too many: not for the sum of those in its whole life."""
    http2 = manager(Settings())["http2_protocol_options"]
    assert 1000 < http2["stream_reset_rate"] <= http2["stream_reset_burst"] < 100_000
    (layer,) = envoy_config(Settings(), FILES)["layered_runtime"]["layers"]
    assert layer["static_layer"]["overload.premature_reset_total_stream_count"] > 1 << 31
