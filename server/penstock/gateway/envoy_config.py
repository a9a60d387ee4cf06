"""Envoy's configuration as a dictionary, made of the settings: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.config import Settings
from penstock.gateway.envoy_tls import transport_socket
from penstock.gateway.limits import (
    HANDSHAKE_S,
    MAX_HEADERS,
    MAX_HEADERS_KIB,
    MAX_STREAMS,
    max_connections,
)
from penstock.gateway.tls_files import TlsFiles

Json = dict[str, Any]

STAT_PREFIX: Final = "in"
"""Envoy counts our requests under `http.in.`."""
MAX_RESETS_PER_S: Final = 4_000
"""Calls that a client may cancel, on one connection. At its deadline it cancels them all, so an overloaded server must
bear many: beyond, the whole connection is closed, and calls fail on it that nobody cancelled. Each costs the gateway
what a call costs, without MAX_STREAMS to bound them: without a limit one client could fill the memory, and with one
that is too high the event loop is behind for so long that the supervisor takes the gateway for dead."""
MAX_RESETS_AT_ONCE: Final = 2 * MAX_RESETS_PER_S
NO_LIMIT: Final = (1 << 32) - 1
INFERENCE: Final = "/inference.GRPCInferenceService/"
MODEL_INFER: Final = f"{INFERENCE}ModelInfer"
MODEL_STREAM_INFER: Final = f"{INFERENCE}ModelStreamInfer"
HEADERS_S: Final = 10.0
"""Seconds that a request's headers may take."""
CONNECTION_BUFFER_BYTES: Final = 1 << 20
OWNER_ONLY: Final = 0o600

_TYPES: Final = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class EnvoyFiles:
    """Where Envoy finds, and makes, what it needs."""

    module: Path
    """pyvoy's dynamic module."""
    app: str
    """The ASGI application, as `module:name`."""
    http_socket: Path
    """A Unix socket beside the TCP ports, by which the supervisor probes the application where they are plain text."""
    admin_socket: Path
    tls: TlsFiles


def envoy_config(settings: Settings, files: EnvoyFiles) -> Json:
    """The whole bootstrap configuration. Ports must be resolved: none may be 0."""
    return {
        # node ids are what secret discovery will ask for
        "node": {"id": "penstock", "cluster": "penstock"},
        "admin": {"address": _pipe(files.admin_socket)},
        "static_resources": {"listeners": [_listener(settings, files)]},
        "overload_manager": _overload_manager(),
        "layered_runtime": {"layers": [{"name": "static", "static_layer": dict(_RUNTIME)}]},
    }


_RUNTIME: Final[Mapping[str, int]] = {
    # closes a connection once half of its calls, over its whole life, were cancelled within 2 s: with short deadlines
    # that is nobody's attack, and MAX_RESETS_PER_S stands against those
    "overload.premature_reset_total_stream_count": NO_LIMIT,
}


def _listener(settings: Settings, files: EnvoyFiles) -> Json:
    """One listener for all addresses: each one more would start the application once more."""
    addresses = [_tcp(settings.host, port) for port in settings.ports().values()]
    chain: Json = {"filters": [_connection_manager(settings, files)]}
    if settings.tls.enabled:
        # all addresses have the same TLS: a second chain of filters would be a second application
        chain |= {
            "transport_socket": transport_socket(settings.tls, files.tls),
            "transport_socket_connect_timeout": f"{HANDSHAKE_S}s",
        }
    else:
        addresses.append(_pipe(files.http_socket))
    first, *others = addresses
    return {
        "name": "main",
        "address": first,
        "additional_addresses": [{"address": address} for address in others],
        # a second server on the same port must fail, not take half of the connections
        "enable_reuse_port": False,
        # few gRPC connections carry all requests: spread them evenly over Envoy's threads
        "connection_balance_config": {"exact_balance": {}},
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _connection_manager(settings: Settings, files: EnvoyFiles) -> Json:
    config: Json = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "server_name": "penstock",
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "route_config": _routes(),
        "http_filters": [_refuse_bad_paths(), _ask_for_trailers(), _pyvoy(files)],
        **_identity(),
        **_limits(settings.slow_client_secs),
    }
    if settings.access_log:
        config["access_log"] = [_access_log()]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _routes() -> Json:
    """All goes to the application. Who ends a call at its `grpc-timeout` must be one alone: where the application does,
    Envoy's own timer would now and then fire between an answer's body and its trailers, and reset the call."""
    own = {"cluster": "none", "timeout": "0s"}
    ended = {**own, "max_stream_duration": {"grpc_timeout_header_max": "0s"}}
    routes = [
        # its scheduler answers at the deadline
        {"match": {"path": MODEL_INFER}, "route": own},
        # it ends itself at its deadline
        {"match": {"path": MODEL_STREAM_INFER}, "route": own},
        {"match": {"prefix": INFERENCE}, "route": ended},
        # streams, which end when their clients do, and HTTP
        {"match": {"prefix": "/"}, "route": own},
    ]
    host = {"name": "all", "domains": ["*"], "routes": routes}
    return {"validate_clusters": False, "virtual_hosts": [host]}


def _identity() -> Json:
    """Who the client is can't be forged by headers. Nor by names in its certificate that look like further names once
    they are in one text: `cert` is what the application goes by."""
    return {
        "use_remote_address": True,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {
            "cert": True,
            "subject": True,
            "uri": True,
            "dns": True,
        },
    }


def _limits(patience_s: float) -> Json:
    """0 s are for ever, to Envoy."""
    return {
        "request_headers_timeout": _seconds(min(HEADERS_S, patience_s)),
        # it would end slow inferences too
        "stream_idle_timeout": "0s",
        # whoever takes nothing of an answer that is ready would have it kept for ever
        "stream_flush_timeout": _seconds(patience_s),
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "http_protocol_options": {
            "accept_http_10": True,
            "default_host_for_http_10": "localhost",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": MAX_STREAMS,
            "stream_reset_burst": MAX_RESETS_AT_ONCE,
            "stream_reset_rate": MAX_RESETS_PER_S,
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "ALLOW",
            "max_headers_count": MAX_HEADERS,
        },
    }


def _refuse_bad_paths() -> Json:
    """D7: a path that is not UTF-8 once decoded would hang for ever."""
    bad = {"url_path": {"path": {"safe_regex": {"regex": ".*%[89a-fA-F].*"}}}}
    policy = {"permissions": [bad], "principals": [{"any": True}]}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"bad path": policy}},
        },
    }


def _ask_for_trailers() -> Json:
    """D8: without `te: trailers` the grpc-status would be dropped."""
    mutation = {
        "append": {
            "header": {"key": "te", "value": "trailers"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [mutation]},
        },
    }


def _pyvoy(files: EnvoyFiles) -> Json:
    options = {
        "app": files.app,
        "interface": "asgi",
        "root_path": "",
        "worker_threads": 1,
        "loop": "uvloop",
        # said aloud, so that an exception at start ends the process
        "lifespan": True,
    }
    return {
        "name": "pyvoy",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(files.module)}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": json.dumps(options),
            },
        },
    }


def _overload_manager() -> Json:
    monitor = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_TYPES}.resource_monitors.downstream_connections.v3"
            ".DownstreamConnectionsConfig",
            "max_active_downstream_connections": max_connections(),
        },
    }
    return {"refresh_interval": "0.25s", "resource_monitors": [monitor]}


_ACCESS_LOG_FIELDS: Final[Mapping[str, str]] = {
    "ts": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    # without its query: some clients put credentials there
    "path": "%PATH(NQ)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
    "flags": "%RESPONSE_FLAGS%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def _access_log() -> Json:
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": f"{_TYPES}.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": dict(_ACCESS_LOG_FIELDS)},
        },
    }


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"


def _tcp(host: str, port: int) -> Json:
    address: Json = {"address": host, "port_value": port}
    if host == "::":
        address["ipv4_compat"] = True
    return {"socket_address": address}


def _pipe(path: Path) -> Json:
    return {"pipe": {"path": str(path), "mode": OWNER_ONLY}}
