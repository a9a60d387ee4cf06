"""The JSON Schemas of `/openapi.json`: those that all models share, and those made of one model's signature."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from penstock.access.limits import NAMES as LIMITS
from penstock.gateway.json_tensors import BINARY_ONLY
from penstock.model_config import ModelConfig, Tensor, wire_shape
from penstock.types import NUMPY_DTYPES

Schema = dict[str, Any]

MAX_EXAMPLE_ELEMENTS: Final = 256
"""Tensors with more have no example: nobody would read it."""


def ref(name: str) -> Schema:
    """A shared schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
ANY: Final[Schema] = {"type": "object"}
SHAPE: Final[Schema] = _array({"type": "integer", "minimum": 0})
DATATYPE: Final[Schema] = {"type": "string", "enum": list(NUMPY_DTYPES)}
PARAMETERS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}
_DECLARED: Final = _array(
    _object(("name", "datatype", "shape"), name=TEXT, datatype=DATATYPE, shape=_array(INTEGER))
)
_VERSION_LINE: Final = _object(name=TEXT, version=TEXT, state=TEXT, reason=TEXT, devices=TEXT)
_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
_TENANT: Final = _object(
    ("name",),
    name=TEXT,
    disabled=BOOLEAN,
    weight=_OR_NULL,
    models=_array(TEXT),
    captured=_array(TEXT),
    created_at=TEXT,
    keys=_array(ref("ApiKey")),
    limits=ref("Quotas"),
)
_ROLLOUT: Final = _object(
    ("model", "stable", "candidate", "mode", "status", "share"),
    model=TEXT,
    stable=INTEGER,
    candidate=INTEGER,
    mode=TEXT,
    status=TEXT,
    step=INTEGER,
    steps=_array({"type": "number"}),
    share={"type": "integer", "description": "Of the candidate, in hundredths of a percent"},
    guards=_array(ANY),
    events=_array(ANY),
    counts=ANY,
    plan=ANY,
    by=TEXT,
    started_at=TEXT,
    ended_at=TEXT,
    problem=TEXT,
)
_NEW_ROLLOUT: Final = _object(
    ("to",),
    to={"type": ["integer", "string"], "description": "The version to try, or an alias with @"},
    steps=_array({"type": "number"}),
    step_s={"type": "number"},
    min_requests=INTEGER,
    mode={"type": "string", "enum": ["canary", "shadow"]},
    promote=BOOLEAN,
    sticky=BOOLEAN,
    fallback=BOOLEAN,
    tolerance=ANY,
    guards=ANY,
    despite_gates=BOOLEAN,
)
_NEW_ROLLOUT["properties"]["from"] = {
    "type": ["integer", "string", "null"],
    "description": "The version that is gone back to; the one that answers now unless given",
}
_API_KEY: Final = _object(
    ("id", "tenant"),
    id=TEXT,
    tenant=TEXT,
    state={"type": "string", "enum": ["active", "expired", "revoked"]},
    roles=_array(TEXT),
    models=_array(TEXT),
    label=TEXT,
    created_at=TEXT,
    expires_at={"type": ["string", "null"]},
    revoked_at={"type": ["string", "null"]},
    last_used={"type": ["string", "null"]},
    key={**TEXT, "description": "The key itself, in the answer that makes it alone"},
)
_LIMITS: Final[Schema] = {
    "type": "object",
    "properties": dict.fromkeys(LIMITS, _OR_NULL),
    "additionalProperties": False,
}

SHARED: Final[dict[str, Schema]] = {
    "Any": ANY,
    "Text": TEXT,
    "Error": _object(("error",), error={"type": "string", "description": "What is wrong"}),
    "Server": _object(
        ("name", "version", "extensions"), name=TEXT, version=TEXT, extensions=_array(TEXT)
    ),
    "Models": _object(("models",), models=_array(TEXT)),
    "Registry": _object(
        ("agent", "reachable", "models"),
        uri=TEXT,
        agent={"type": "boolean"},
        reachable={"type": "boolean"},
        last_contact={"type": ["number", "null"]},
        problem=TEXT,
        models=_array(ANY),
    ),
    "ModelMetadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=TEXT,
        versions=_array(TEXT),
        platform=TEXT,
        inputs=_DECLARED,
        outputs=_DECLARED,
        properties={
            "type": "object",
            "additionalProperties": TEXT,
            "description": "`fallback`: why the model does not run as it was asked for, where it does not",
        },
    ),
    "Lineage": _object(
        ("model", "version", "digest", "files"),
        model=TEXT,
        version=TEXT,
        digest=TEXT,
        digest_problem=TEXT,
        files=_array(_object(path=TEXT, sha256=TEXT)),
        release={"type": ["object", "null"], "description": "What was verified before the load"},
        steps=_array(_object(model=TEXT, version=TEXT, digest=TEXT)),
        registry={"type": ["object", "null"], "description": "What the registry says"},
        registry_problem=TEXT,
    ),
    "ModelConfig": {
        "type": "object",
        "description": "Triton's ModelConfig as JSON: proto/model_config.proto",
    },
    "InferInput": _object(
        ("name", "shape", "datatype"),
        name=TEXT,
        shape=SHAPE,
        datatype=DATATYPE,
        parameters=PARAMETERS,
        data={"type": "array", "description": "Elements, flat or nested"},
    ),
    "RequestedOutput": _object(("name",), name=TEXT, parameters=PARAMETERS),
    "InferRequest": _object(
        ("inputs",),
        id=TEXT,
        parameters=PARAMETERS,
        inputs=_array(ref("InferInput")),
        outputs=_array(ref("RequestedOutput")),
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        id=TEXT,
        model_name=TEXT,
        model_version=TEXT,
        parameters=PARAMETERS,
        outputs=_array(ref("InferInput")),
    ),
    "Statistics": _object(("model_stats",), model_stats=_array(ANY)),
    "TraceSettings": {"type": "object", "description": "trace_level, trace_rate, trace_count …"},
    "AuditRecords": {
        "type": "object",
        "description": "Records of the audit log, oldest first, and the number after which to ask for more.",
        "properties": {
            "records": {"type": "array", "items": {"type": "object"}},
            "last": {"type": "integer"},
        },
    },
    "LogSettings": {"type": "object", "description": "log_info, log_verbose_level …"},
    "IndexRequest": _object(ready=BOOLEAN),
    "Index": _array(_VERSION_LINE),
    "LoadRequest": _object(
        parameters={
            **_object(config={**TEXT, "description": "ModelConfig as JSON"}),
            "patternProperties": {"^file:": {**TEXT, "contentEncoding": "base64"}},
            "additionalProperties": False,
        }
    ),
    "UnloadRequest": _object(parameters=_object(unload_dependents=BOOLEAN)),
    "Regions": _array(_object(name=TEXT, key=TEXT, offset=INTEGER, byte_size=INTEGER)),
    "Registration": _object(("key", "byte_size"), key=TEXT, offset=INTEGER, byte_size=INTEGER),
    "V1Ready": _object(("name", "ready"), name=TEXT, ready=BOOLEAN),
    "PredictRequest": {
        **_object(
            instances={"type": "array", "minItems": 1, "description": "A value for each row"},
            inputs={"description": "Whole tensors: by name, or the only one"},
        ),
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "PredictResponse": _object(("predictions",), predictions={"type": "array"}),
    "MmeModel": _object(("modelName", "modelUrl"), modelName=TEXT, modelUrl=TEXT),
    "MmeModels": _object(("models",), models=_array(ref("MmeModel"))),
    "MmeLoad": _object(("model_name", "url"), model_name=TEXT, url=TEXT),
    "Tenant": _TENANT,
    "Tenants": _object(("tenants",), tenants=_array(_TENANT)),
    "Rollout": _ROLLOUT,
    "Rollouts": _object(("rollouts",), rollouts=_array(_ROLLOUT)),
    "NewRollout": _NEW_ROLLOUT,
    "NewTenant": _object(("name",), name=TEXT, models=_array(TEXT), weight=_OR_NULL),
    "TenantChanges": _object(
        disabled=BOOLEAN, models=_array(TEXT), weight=_OR_NULL, captured=_array(TEXT)
    ),
    "ApiKey": _API_KEY,
    "ApiKeys": _array(_API_KEY),
    "NewApiKey": _object(
        roles=_array(TEXT), models=_array(TEXT), label=TEXT, expires_in_s=_OR_NULL
    ),
    "KeyRotation": _object(overlap_s={"type": "number"}, expires_in_s=_OR_NULL),
    "Quotas": {"type": "object", "additionalProperties": _LIMITS},
    "QuotaChanges": _object(("limits",), models=TEXT, limits=_LIMITS),
    "Usage": _array(
        _object(tenant=TEXT, day=TEXT, model=TEXT, requests=INTEGER, rows=INTEGER, bytes=INTEGER)
    ),
}
"""Name → schema."""


# ── of one model ────────────────────────────────────────────────────────────────────────────────────────────────────


def infer_request(config: ModelConfig) -> Schema:
    """The body of an inference request for the model."""
    tensors = [_tensor(each, config) for each in config.input]
    inputs = _array({"oneOf": tensors} if len(tensors) != 1 else tensors[0])
    required = [tensor for tensor in config.input if not tensor.optional]
    inputs |= {"minItems": len(required), "maxItems": len(tensors)}
    names: Schema = {"type": "string", "enum": [tensor.name for tensor in config.output]}
    return _object(
        ("inputs",),
        id=TEXT,
        parameters=PARAMETERS,
        inputs=inputs,
        outputs=_array(_object(("name",), name=names, parameters=PARAMETERS)),
    )


def infer_response(config: ModelConfig) -> Schema:
    """What the model answers."""
    tensors = [_tensor(each, config) for each in config.output]
    return _object(
        ("model_name", "model_version", "outputs"),
        id=TEXT,
        model_name={"const": config.name},
        model_version=TEXT,
        parameters=PARAMETERS,
        outputs=_array({"oneOf": tensors} if len(tensors) != 1 else tensors[0]),
    )


def predict_request(config: ModelConfig) -> Schema:
    """The body of a KServe V1 prediction for the model."""
    rows = {tensor.name: _nested(tensor, tensor.dims) for tensor in config.input}
    columns = {
        tensor.name: _nested(tensor, wire_shape(tensor, config.max_batch_size))
        for tensor in config.input
    }
    required = tuple(tensor.name for tensor in config.input if not tensor.optional)
    instance, inputs = _object(required, **rows), _object(required, **columns)
    if len(config.input) == 1:
        instance = {"anyOf": [*rows.values(), instance]}
        inputs = {"anyOf": [*columns.values(), inputs]}
    return {
        **_object(instances={**_array(instance), "minItems": 1}, inputs=inputs),
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    }


def predict_response(config: ModelConfig) -> Schema:
    """What it answers to that."""
    values = {tensor.name: _nested(tensor, tensor.dims) for tensor in config.output}
    row = next(iter(values.values())) if len(values) == 1 else _object(tuple(values), **values)
    # without a batch dimension the only output is the list itself
    items = row if config.max_batch_size > 0 else {}
    return _object(("predictions",), predictions=_array(items))


def infer_example(config: ModelConfig) -> Schema | None:
    """A request that the model takes, of zeros; None: it would be too long, or can't be JSON."""
    inputs = []
    for tensor in config.input:
        shape = [1 if size == -1 else size for size in wire_shape(tensor, config.max_batch_size)]
        if prod(shape) > MAX_EXAMPLE_ELEMENTS or tensor.datatype in BINARY_ONLY:
            return None
        data = [_zero(tensor.datatype)] * prod(shape)
        described = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        inputs.append({**described, "data": data})
    return _stateful(config) | {"inputs": inputs}


def _stateful(config: ModelConfig) -> Schema:
    """What a request to a stateful model says of its sequence, here that it is all of one."""
    if config.sequence_batching is None:
        return {}
    return {"parameters": {"sequence_id": 1, "sequence_start": True, "sequence_end": True}}


def predict_example(config: ModelConfig) -> Schema | None:
    """The same as KServe V1 has it."""
    values: dict[str, Any] = {}
    for tensor in config.input:
        dims = [1 if size == -1 else size for size in tensor.dims]
        if prod(dims) > MAX_EXAMPLE_ELEMENTS:
            return None
        values[tensor.name] = np.full(dims, _zero(tensor.datatype), np.object_).tolist()
    return {"instances": [values]}


def generate_request(config: ModelConfig) -> Schema:
    """The body of a generate request for the model: its inputs by name, and parameters."""
    values = {tensor.name: _nested(tensor, tensor.dims) for tensor in config.input}
    anyhow = {name: {"anyOf": [each, _item(each)]} for name, each in values.items()}
    return _object((), id=TEXT, parameters=PARAMETERS, **anyhow)


def generate_response(config: ModelConfig) -> Schema:
    """One response to it, or one event's data."""
    values = {tensor.name: _nested(tensor, tensor.dims) for tensor in config.output}
    anyhow = {name: {"anyOf": [each, _item(each)]} for name, each in values.items()}
    return _object(("model_name", "model_version"), model_name=TEXT, model_version=TEXT, **anyhow)


def _item(value: Schema) -> Schema:
    """A list of one element may be the element."""
    while "items" in value:
        value = value["items"]
    return value


def generate_example(config: ModelConfig) -> Schema | None:
    """A request that the model takes, of zeros; None: it would be too long, or can't be JSON."""
    example = infer_example(config)
    if example is None:
        return None
    values = {
        each["name"]: each["data"] if len(each["data"]) > 1 else each["data"][0]
        for each in example["inputs"]
    }
    return values | {key: example[key] for key in ("parameters",) if key in example}


def signature_of(config: ModelConfig, kind: str) -> list[Schema]:
    """Inputs or outputs for a person: name, datatype, shape."""
    tensors: tuple[Tensor, ...] = getattr(config, kind)
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(wire_shape(tensor, config.max_batch_size)),
            "optional": tensor.optional,
        }
        for tensor in tensors
    ]


def _tensor(tensor: Tensor, config: ModelConfig) -> Schema:
    """A tensor as the protocol's inference has it, in a request or a response."""
    shape = wire_shape(tensor, config.max_batch_size)
    sizes = [{"type": "integer", "minimum": 0} if size == -1 else {"const": size} for size in shape]
    exactly: Schema = {"type": "array", "minItems": len(shape), "maxItems": len(shape)}
    if sizes:
        exactly["prefixItems"] = sizes
    properties: dict[str, Schema] = {
        "name": {"const": tensor.name},
        "datatype": {"const": tensor.datatype},
        "shape": exactly,
        "parameters": PARAMETERS,
    }
    if tensor.datatype in BINARY_ONLY:
        return _object(("name", "datatype", "shape", "parameters"), **properties)
    elements = {"anyOf": [_element(tensor.datatype), {"type": "array"}]}
    return _object(("name", "datatype", "shape"), **properties, data=_array(elements))


def _nested(tensor: Tensor, dims: tuple[int, ...]) -> Schema:
    """A value of the tensor as nested lists."""
    schema = _element(tensor.datatype)
    if tensor.datatype == "BYTES":
        schema = {"anyOf": [TEXT, _object(("b64",), b64=TEXT)]}
    for size in reversed(dims):
        schema = _array(schema)
        if size != -1:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _element(datatype: str) -> Schema:
    dtype = NUMPY_DTYPES[datatype]
    if datatype == "BOOL":
        return BOOLEAN
    if datatype == "BYTES":
        return TEXT
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    return {"type": "number"}


def _zero(datatype: str) -> Any:
    return {"BOOL": False, "BYTES": "text"}.get(datatype, 0)
