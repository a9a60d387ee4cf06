"""What stands for a setting's value in `penstock serve --help`, and in the table of docs/configuration.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from penstock.config_section import kinds_of
from penstock.secrets_config import SecretRef

_OWN: Final[Mapping[str, str]] = {
    "host": "ADDRESS",
    "load_model": "MODEL",
    "rate_limit_resource": "NAME:COUNT[:DEVICE]",
    "metrics_config": "NAME=VALUE",
    "cache_config": "CACHE,NAME=VALUE",
    "trace_config": "[MODE,]NAME=VALUE",
    "tenant_weights": "NAME=WEIGHT",
    "tenant_header": "HEADER",
    "sagemaker_safe_port_range": "LOW-HIGH",
    "sagemaker_default_model": "MODEL",
    "vertex_ai_default_model": "MODEL",
    "vertex_ai_predict_route": "PATH",
    "vertex_ai_health_route": "PATH",
    "access_anonymous_roles": "ROLE",
    "access_anonymous_tenant": "TENANT",
    "artifacts_allow_pickle": "PATTERN",
    "quotas_redis_url": "URL",
    "secrets_vault_address": "URL",
}
"""Of settings that are more particular than their type."""

_OF_TYPES: Final[Mapping[type, str]] = {
    bool: "[true|false]",
    SecretRef: "REFERENCE",
    ByteSize: "SIZE",
    int: "NUMBER",
    float: "SECONDS",
    str: "TEXT",
}


def metavar(name: str, field: FieldInfo) -> str:
    """One word, or the form of the value. `name`: the flat one, as `access_tenants_file`."""
    if name in _OWN:
        return _OWN[name]
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    kinds = tuple(kinds_of(field.annotation))
    if Path in kinds:
        return "FILE" if name.endswith("_file") else "FOLDER"
    if name.endswith("_percent"):
        return "PERCENT"
    return next(_OF_TYPES[kind] for kind in kinds if kind in _OF_TYPES)
