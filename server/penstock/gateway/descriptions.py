"""What each route asks of its caller, and what `/openapi.json` says of it.

Schemas are named as in `openapi_schemas.py`.
"""

from __future__ import annotations

from typing import Final

from penstock.access.rules import PUBLIC, of, of_model
from penstock.gateway.route_table import Description
from penstock.verbs import Verb

_MODEL: Final = (400, 404, 503)
_SHARED_MEMORY: Final = (400, 404, 501)

LIVE: Final = Description(tag="health", rule=PUBLIC, summary="Whether the server runs")
READY: Final = Description(
    tag="health",
    rule=PUBLIC,
    summary="Whether the server takes requests; 400 when not, as in Triton",
    errors=(400,),
)
READYZ: Final = Description(
    tag="health",
    rule=PUBLIC,
    summary="Whether the server takes requests; 503 when not",
    errors=(503,),
)
MODEL_READY: Final = Description(
    tag="health",
    rule=of_model(Verb.READ_METADATA),
    summary="Whether a model takes requests; 400 when not, as in Triton",
    errors=(400,),
)

SERVER: Final = Description(
    tag="metadata",
    rule=of(Verb.READ_METADATA),
    summary="The server's name, version and extensions",
    response="Server",
)
MODELS: Final = Description(
    tag="metadata",
    rule=of(Verb.READ_METADATA),
    summary="The names of all models that are served",
    response="Models",
)
METADATA: Final = Description(
    tag="metadata",
    rule=of_model(Verb.READ_METADATA),
    summary="A model's versions, inputs and outputs",
    response="ModelMetadata",
    errors=_MODEL,
)
CONFIG: Final = Description(
    tag="metadata",
    rule=of_model(Verb.READ_METADATA),
    summary="A model's complete configuration",
    response="ModelConfig",
    errors=_MODEL,
)

TIMEOUT: Final = "X-Request-Timeout-Ms"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"

INFER: Final = Description(
    tag="inference",
    rule=of_model(Verb.INFER),
    summary="Run a model",
    headers=(TIMEOUT, HEADER_LENGTH),
    request="InferRequest",
    response="InferResponse",
    errors=(400, 404, 413, 500, 503, 504),
)
GENERATE: Final = Description(
    tag="inference",
    rule=of_model(Verb.INFER),
    summary="Run a model with inputs and outputs as plain JSON",
    headers=(TIMEOUT,),
    request="Any",
    response="Any",
    errors=(400, 404, 413, 500, 501, 503, 504),
)
GENERATE_STREAM: Final = Description(
    tag="inference",
    rule=of_model(Verb.INFER),
    summary="As generate, with each response as a server-sent event",
    headers=(TIMEOUT,),
    request="Any",
    response="Any",
    media_type="text/event-stream",
    errors=(400, 404, 413, 500, 501, 503, 504),
)

STATISTICS: Final = Description(
    tag="observation",
    rule=of_model(Verb.READ_STATISTICS),
    summary="What models did, and how long it took",
    response="Statistics",
    errors=_MODEL,
)
EXPLAIN: Final = Description(
    tag="observation",
    rule=of_model(Verb.READ_STATISTICS),
    summary="How a model is scheduled",
    response="Any",
    errors=_MODEL,
)
LINEAGE: Final = Description(
    tag="observation",
    rule=of_model(Verb.READ_STATISTICS),
    summary="Where a model version comes from: its files, its signature, and what its registry says",
    response="Lineage",
    errors=_MODEL,
)
METRICS: Final = Description(
    tag="observation",
    rule=of(Verb.METRICS),
    summary="Metrics for Prometheus",
    response="Text",
    media_type="text/plain; version=0.0.4",
)
TRACE: Final = Description(
    tag="observation",
    rule=of_model(Verb.CONFIGURE),
    summary="What is traced",
    response="TraceSettings",
    errors=(404,),
)
SET_TRACE: Final = Description(
    tag="observation",
    rule=of_model(Verb.CONFIGURE),
    action="trace.change",
    summary="Change what is traced",
    request="TraceSettings",
    response="TraceSettings",
    errors=(400, 404),
)
LOGGING: Final = Description(
    tag="observation", rule=of(Verb.CONFIGURE), summary="What is logged", response="LogSettings"
)
SET_LOGGING: Final = Description(
    tag="observation",
    rule=of(Verb.CONFIGURE),
    action="log.change",
    summary="Change what is logged",
    request="LogSettings",
    response="LogSettings",
    errors=(400,),
)

AUDIT: Final = Description(
    tag="observation",
    rule=of(Verb.READ_AUDIT),
    summary="Records of the audit log: the last ones, or those after a number",
    response="AuditRecords",
    errors=(400, 404, 503),
)

INDEX: Final = Description(
    tag="repository",
    rule=of(Verb.READ_METADATA),
    summary="All models and versions, also those that can't be served",
    request="IndexRequest",
    optional_body=True,
    response="Index",
    errors=(400, 404),
)
LOAD: Final = Description(
    tag="repository",
    rule=of_model(Verb.LOAD),
    action="model.load",
    summary="Load a model, or load it anew",
    request="LoadRequest",
    optional_body=True,
    errors=(400, 404, 413, 503),
)
UNLOAD: Final = Description(
    tag="repository",
    rule=of_model(Verb.LOAD),
    action="model.unload",
    summary="Stop serving a model",
    request="UnloadRequest",
    optional_body=True,
    errors=(400, 404, 503),
)

REGISTRY: Final = Description(
    tag="repository",
    rule=of(Verb.READ_METADATA),
    summary="Models that come from a registry: what references mean, and what of that is there",
    response="Registry",
    errors=(404,),
)
REGISTRY_WEBHOOK: Final = Description(
    tag="repository",
    # its signature says whose it is
    rule=PUBLIC,
    summary="For MLflow's webhooks: the registry has changed, and is asked at once",
    headers=("X-MLflow-Signature", "X-MLflow-Delivery-Id", "X-MLflow-Timestamp"),
    request="Any",
    response="Any",
    errors=(400, 401, 404, 501),
)

REGION_STATUS: Final = Description(
    tag="shared memory",
    rule=of(Verb.INFER),
    summary="The regions that are registered",
    response="Regions",
    errors=_SHARED_MEMORY,
)
REGISTER: Final = Description(
    tag="shared memory",
    rule=of(Verb.INFER),
    summary="Register a region",
    request="Registration",
    errors=_SHARED_MEMORY,
)
REGISTER_NAMELESS: Final = Description(
    tag="shared memory",
    rule=of(Verb.INFER),
    summary="Refused: a region needs a name",
    request="Registration",
    errors=(400,),
)
UNREGISTER: Final = Description(
    tag="shared memory",
    rule=of(Verb.INFER),
    summary="Forget a region, or all of them",
    request="Any",
    optional_body=True,
    errors=_SHARED_MEMORY,
)

OPENAPI: Final = Description(
    tag="documentation", rule=of(Verb.READ_METADATA), summary="This document", response="Any"
)
DOCS: Final = Description(
    tag="documentation",
    rule=PUBLIC,
    summary="This document as a page to try requests on",
    response="Text",
    media_type="text/html",
)
DOCS_FILE: Final = Description(
    tag="documentation",
    rule=PUBLIC,
    summary="What the page consists of",
    response="Text",
    media_type="text/plain",
    errors=(404,),
)

V1_MODELS: Final = Description(
    tag="KServe V1",
    rule=of(Verb.READ_METADATA),
    summary="The names of all models that are served",
    response="Models",
)
V1_READY: Final = Description(
    tag="KServe V1",
    rule=of_model(Verb.READ_METADATA),
    summary="Whether a model takes requests",
    response="V1Ready",
    errors=(404, 503),
)
V1_PREDICT: Final = Description(
    tag="KServe V1",
    rule=of_model(Verb.INFER),
    headers=(TIMEOUT,),
    summary="Run a model",
    request="PredictRequest",
    response="PredictResponse",
    errors=(400, 404, 413, 500, 503, 504),
)
V1_EXPLAIN: Final = Description(
    tag="KServe V1",
    rule=of_model(Verb.INFER),
    summary="Not supported: models explain nothing",
    request="PredictRequest",
    errors=(501,),
)

PING: Final = Description(
    tag="SageMaker",
    rule=PUBLIC,
    summary="Whether the server takes requests; 400 when not",
    errors=(400,),
)
INVOCATIONS: Final = Description(
    tag="SageMaker",
    rule=of(Verb.INFER),
    headers=("X-Amzn-SageMaker-Target-Model",),
    summary="Run the default model, or the one that X-Amzn-SageMaker-Target-Model names",
    request="InferRequest",
    response="InferResponse",
    errors=(400, 404, 413, 500, 503, 504),
)
MME_LIST: Final = Description(
    tag="SageMaker",
    rule=of(Verb.READ_METADATA),
    summary="The models that were loaded by request",
    response="MmeModels",
)
MME_GET: Final = Description(
    tag="SageMaker",
    rule=of_model(Verb.READ_METADATA),
    summary="One of them",
    response="MmeModel",
    errors=(404,),
)
MME_LOAD: Final = Description(
    tag="SageMaker",
    rule=of(Verb.LOAD),
    action="model.load",
    summary="Load a model from a local folder",
    request="MmeLoad",
    errors=(400, 409, 503, 507),
)
MME_UNLOAD: Final = Description(
    tag="SageMaker",
    rule=of_model(Verb.LOAD),
    action="model.unload",
    summary="Stop serving it",
    errors=(404, 503),
)
MME_INVOKE: Final = Description(
    tag="SageMaker",
    rule=of_model(Verb.INFER),
    summary="Run it",
    request="InferRequest",
    response="InferResponse",
    errors=(400, 404, 413, 500, 503, 504),
)

VERTEX_HEALTH: Final = Description(
    tag="Vertex AI",
    rule=PUBLIC,
    summary="Whether the server takes requests; 400 when not",
    errors=(400,),
)
VERTEX_PREDICT: Final = Description(
    tag="Vertex AI",
    rule=of(Verb.INFER),
    headers=("X-Vertex-Ai-Triton-Redirect",),
    summary="Run the default model, or ask the route that X-Vertex-Ai-Triton-Redirect names",
    request="InferRequest",
    response="InferResponse",
    errors=(400, 404, 413, 500, 503, 504),
)
