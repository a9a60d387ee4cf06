"""What Envoy is told of TLS: once in its configuration, and of certificates whenever they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from penstock.gateway.tls_files import TlsFiles
from penstock.tls_config import CIPHERS, TlsSettings

Json = dict[str, Any]

SERVER: Final = "server"
CLIENT_CA: Final = "client-ca"
CURVES: Final = ("X25519", "P-256", "P-384")
SESSION_S: Final = 300
"""How long a client may go on with what it agreed on earlier: its certificate is not looked at again then."""

_TYPES: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def transport_socket(settings: TlsSettings, files: TlsFiles) -> Json:
    """TLS for a filter chain. Certificates come from `files`, which Envoy watches."""
    common: Json = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {
            "tls_minimum_protocol_version": f"TLSv{settings.min_version.replace('.', '_')}",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": list(CIPHERS),
            "ecdh_curves": list(CURVES),
        },
        "tls_certificate_sds_secret_configs": [_secret(SERVER, files.sds_server, files)],
    }
    if settings.client_auth != "none":
        common["validation_context_sds_secret_config"] = _secret(
            CLIENT_CA, files.sds_client_ca, files
        )
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.DownstreamTlsContext",
            # optional: one that is shown must be good all the same
            "require_client_certificate": settings.client_auth == "require",
            "session_timeout": f"{SESSION_S}s",
            "common_tls_context": common,
        },
    }


def server_secret(certificates: str, key: str) -> str:
    """The file of certificate and key: one file, so that they can't be read as halves of two pairs."""
    pair = {"certificate_chain": {"inline_string": certificates}}
    return _resource(SERVER, {"tls_certificate": {**pair, "private_key": {"inline_string": key}}})


def client_ca_secret(certificates: str) -> str:
    """The file of the CAs whose clients are let in."""
    trusted = {"trusted_ca": {"inline_string": certificates}}
    return _resource(CLIENT_CA, {"validation_context": trusted})


def _resource(name: str, secret: Json) -> str:
    return json.dumps({"resources": [{"@type": f"{_TYPES}.Secret", "name": name, **secret}]})


def _secret(name: str, path: Path, files: TlsFiles) -> Json:
    return {
        "name": name,
        "sds_config": {
            "path_config_source": {
                "path": str(path),
                "watched_directory": {"path": str(files.folder)},
            },
            "resource_api_version": "V3",
        },
    }
