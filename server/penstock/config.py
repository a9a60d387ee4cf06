"""Every setting, typed and checked once. `config_sources.py` reads them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    ByteSize,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

from penstock.access_config import AccessSettings
from penstock.artifacts_config import ArtifactsSettings
from penstock.audit_config import AuditSettings
from penstock.cache_config import CacheConfig, parse_cache_config
from penstock.capture_config import CaptureSettings
from penstock.config_section import Section
from penstock.cores import available_cores
from penstock.logs import LogFormat, LogSettings
from penstock.metrics_config import MetricsConfig, parse_metrics_config
from penstock.quota_config import QuotaSettings
from penstock.rate_limit_config import Resource, parse_rate_limit_resources
from penstock.registry_config import RegistrySettings
from penstock.rollouts_config import RolloutsSettings
from penstock.secrets_config import SecretsSettings
from penstock.tls_config import TlsSettings
from penstock.trace_config import TraceConfig, parse_trace_config, with_absolute_file

ENV_PREFIX: Final = "PENSTOCK_"
MAX_ENVOY_THREADS: Final = 2
"""One Python thread keeps about two of Envoy busy; more only take cores from the models."""

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Size = Annotated[ByteSize, Field(gt=0)]
RoutePath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~:@/-]*)?$")]


class Settings(BaseSettings):
    """All settings. The constructor reads its arguments only: `config_sources.load_settings` knows the sources."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        use_attribute_docstrings=True,
        # fields named model_* are ours, not pydantic's
        protected_namespaces=(),
    )

    model_repository: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folder of models, in Triton's layout. Repeatable; separated by `:` in the environment."""

    host: str = "127.0.0.1"
    """IP address of all ports. 0.0.0.0 (or ::) opens them to the network."""
    http_port: Port = 8000
    """Port of HTTP; 0 takes a free one."""
    grpc_port: Port = 8001
    """Port of gRPC; 0 takes a free one."""
    metrics_port: Port = 8002
    """Port of Prometheus metrics; 0 takes a free one."""
    allow_http: bool = True
    """Serve HTTP."""
    allow_grpc: bool = True
    """Serve gRPC."""
    allow_metrics: bool = True
    """Serve metrics."""
    allow_gpu_metrics: bool = True
    """Have metrics of GPUs, where there are some."""
    allow_sagemaker: bool = False
    """Serve SageMaker's protocol."""
    sagemaker_port: Port = 8080
    """Port of SageMaker's protocol; 0 takes a free one."""
    sagemaker_safe_port_range: Annotated[str, StringConstraints(pattern=r"^([0-9]+-[0-9]+)?$")] = ""
    """Ports that all but SageMaker's must be within, as LOW-HIGH."""
    sagemaker_default_model: str = ""
    """Model that SageMaker's /invocations runs."""
    allow_vertex_ai: bool = False
    """Serve Vertex AI's protocol."""
    vertex_ai_port: Port = 8080
    """Port of Vertex AI's protocol; 0 takes a free one."""
    vertex_ai_default_model: str = ""
    """Model that Vertex AI's predictions run; none: the only one."""
    vertex_ai_predict_route: RoutePath = ""
    """Path of Vertex AI's predictions."""
    vertex_ai_health_route: RoutePath = ""
    """Path of Vertex AI's health checks."""
    front: Literal["auto", "envoy", "grpcio"] = "auto"
    """What carries the bytes: Envoy (fast), or grpc.aio and uvicorn in one process (portable)."""

    model_control_mode: Literal["none", "explicit", "poll"] = "none"
    """none: serve all. poll: and follow changes of their folders. explicit: those of --load-model and load requests."""
    repository_poll_secs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15
    """Seconds from one look at the folders to the next, in mode poll; a change counts when two looks saw the same."""
    load_model: Annotated[tuple[str, ...], NoDecode] = ()
    """Model to load at start in explicit mode, `*` for all. Repeatable; `,` in the environment."""
    exit_on_error: bool = False
    """End with 1 if a model can't be loaded at start."""
    strict_readiness: bool = False
    """Ready only when all models are; otherwise as soon as the server takes requests."""
    model_load_thread_count: Annotated[int, Field(ge=1)] = 4
    """Models loaded at the same time."""
    model_load_timeout_secs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300
    """Seconds that one model's load may take."""
    model_load_retry_count: Count = 0
    """How often a failed load is tried again."""

    slow_client_secs: Seconds = 30
    """Seconds that a client may take to begin with a request's body, or to take some of an answer; 0: any time."""
    exit_timeout_secs: Seconds = 30
    """Seconds that requests under way get at the stop."""
    http_max_input_size: Size = ByteSize(64 << 20)
    """Largest HTTP body, in bytes or as 64MiB."""
    grpc_max_message_bytes: Annotated[ByteSize, Field(gt=0, le=2**31 - 1)] = ByteSize(2**31 - 1)
    """Largest gRPC message, in bytes or as 64MiB."""
    max_queue_requests: Annotated[int, Field(ge=1)] = 10_000
    """Requests that one model's queue holds."""
    max_queue_bytes: Size = ByteSize(1 << 30)
    """Bytes of inputs that one model's queue holds."""
    max_queue_secs: Seconds = 60
    """Longest wait in a queue that a new request may have to expect before it is refused; 0: any."""
    max_batch_bytes: Size = ByteSize(1 << 30)
    """Bytes of inputs that one batch holds."""
    cache_config: Annotated[tuple[str, ...], NoDecode] = ()
    """Memory for the answers of models with `response_cache`, as local,size=BYTES. `;` in the environment."""
    response_cache_byte_size: Annotated[ByteSize, Field(ge=0)] = ByteSize(0)
    """Triton's older way to say --cache-config=local,size=BYTES; 0: nothing is cached."""
    allow_client_shm: bool = False
    """Let clients put tensors into shared memory: whoever reaches a port then reaches what lies in /dev/shm."""
    default_threads: Count = 0
    """Compute threads of one model, divided among its instances; 0: as many as cores."""
    envoy_threads: Count = 0
    """Envoy's own threads; 0: one a core, two at most."""

    execution_timeout_secs: Seconds = 300
    """A worker that is busy with one batch for longer hangs and is killed; 0: never."""
    quarantine_secs: Seconds = 600
    """How long a request that kills workers is remembered, and refused at once."""

    rate_limit: Literal["off", "execution_count"] = "off"
    """execution_count: instances run when the resources of their `rate_limiter` are free."""
    rate_limit_resource: Annotated[tuple[str, ...], NoDecode] = ()
    """How much there is of a resource, as NAME:COUNT or NAME:COUNT:DEVICE. Repeatable; `,` in the environment."""

    tenant_header: Annotated[str, StringConstraints(to_lower=True, pattern="^[a-z0-9-]*$")] = ""
    """Header (HTTP) or metadata key (gRPC) that names the tenant, set by a proxy you trust; none: one tenant."""
    tenant_weights: Annotated[Mapping[str, Weight], NoDecode] = Field(default_factory=dict)
    """Tenant's share of a busy model, as NAME=WEIGHT; 1 for all others. Repeatable; `,` in the environment."""

    access_log: bool = False
    """Log each request to standard output as JSON (Envoy front)."""
    log_verbose: Count = 0
    """0, 1 (debug messages) or 2 (those of libraries too)."""
    log_info: bool = True
    """Log what is worth knowing."""
    log_warning: bool = True
    """Log warnings."""
    log_error: bool = True
    """Log errors."""
    log_format: LogFormat = "default"
    """Lines for people, as Triton's ISO8601, or one JSON object each."""
    trace_config: Annotated[tuple[str, ...], NoDecode] = ()
    """What is traced and where to, as [MODE,]NAME=VALUE. Repeatable; `;` in the environment."""
    metrics_config: Annotated[tuple[str, ...], NoDecode] = ()
    """Which latency metrics there are, as NAME=VALUE. Repeatable; `;` in the environment."""
    metrics_interval_ms: Annotated[int, Field(ge=1)] = 2000
    """How old the machine's figures among the metrics may be, in milliseconds."""
    log_file: Path | None = None
    """Append all log lines to this file; else they go to standard error."""
    run_dir: Path | None = None
    """Where each run makes its own private folder, for sockets and what load requests give; else a temporary one."""

    access: AccessSettings = Field(default_factory=AccessSettings)
    """Who may do what."""
    secrets: SecretsSettings = Field(default_factory=SecretsSettings)
    """Where secrets are kept."""
    tls: TlsSettings = Field(default_factory=TlsSettings)
    """TLS on all ports."""
    quotas: QuotaSettings = Field(default_factory=QuotaSettings)
    """How much of it."""
    audit: AuditSettings = Field(default_factory=AuditSettings)
    """What is recorded of what was done and refused."""
    artifacts: ArtifactsSettings = Field(default_factory=ArtifactsSettings)
    """Whose models are served, and how they are kept."""
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    """Which requests and answers are kept as records for training."""
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    """The MLflow registry that models are taken from."""
    rollouts: RolloutsSettings = Field(default_factory=RolloutsSettings)
    """How new versions of models are tried."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("model_repository", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("model_repository", "run_dir", "log_file")
    @classmethod
    def _make_absolute(cls, value: Path | tuple[Path, ...] | None) -> object:
        # other processes read the settings in other folders
        if isinstance(value, tuple):
            return tuple(path.expanduser().absolute() for path in value)
        return value and value.expanduser().absolute()

    @field_validator("load_model", "rate_limit_resource", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("tenant_weights", mode="before")
    @classmethod
    def _split_weights(cls, value: object) -> object:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            return value
        pairs = [str(word).partition("=") for word in words if word]
        for name, equals, _ in pairs:
            if not name or not equals:
                raise ValueError("expected NAME=WEIGHT, such as search=2.5")
        return {name: weight for name, _, weight in pairs}

    @field_validator("metrics_config")
    @classmethod
    def _check_metrics_config(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_metrics_config(value)
        return value

    @field_validator("rate_limit_resource")
    @classmethod
    def _check_rate_limits(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_rate_limit_resources(value)
        return value

    @field_validator("cache_config")
    @classmethod
    def _check_cache_config(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_cache_config(value)
        return value

    @field_validator("trace_config", "metrics_config", "cache_config", mode="before")
    @classmethod
    def _split_configs(cls, value: object) -> object:
        return tuple(filter(None, value.split(";"))) if isinstance(value, str) else value

    @field_validator("trace_config")
    @classmethod
    def _check_trace_config(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        texts = tuple(with_absolute_file(text) for text in value)
        parse_trace_config(texts)
        return texts

    @field_validator("host")
    @classmethod
    def _check_address(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address("127.0.0.1" if value == "localhost" else value))
        except ValueError:
            raise ValueError("expected an IP address, such as 127.0.0.1, 0.0.0.0 or ::") from None

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.load_model and self.model_control_mode != "explicit":
            raise ValueError("load_model needs model_control_mode explicit")
        if self.rate_limit_resource and self.rate_limit == "off":
            raise ValueError("rate_limit_resource needs rate_limit execution_count")
        if self.cache_config and self.response_cache_byte_size:
            raise ValueError(
                "cache_config and response_cache_byte_size say the same: expected only one of them"
            )
        if "*" in self.load_model and len(self.load_model) > 1:
            raise ValueError("load_model: `*` means all models, and must stand alone")
        if self.tenant_header and self.access.mode != "off":
            raise ValueError(
                "tenant_header and access.mode exclude each other: with access control the tenant is whose"
                " credential it is, and no header can say another one"
            )
        self._check_platforms()
        used: dict[int, str] = {}
        for name, port in self.ports().items():
            if port and used.setdefault(port, name) != name:
                raise ValueError(f"{used[port]} and {name} are both {port}, must differ")
        return self

    def _check_platforms(self) -> None:
        ports = self.ports()
        if self.allow_vertex_ai:
            for route in ("predict", "health"):
                if not getattr(self, f"vertex_ai_{route}_route"):
                    name = f"AIP_{route.upper()}_ROUTE"
                    raise ValueError(f"{name} is not defined for Vertex AI endpoint")
            if self.vertex_ai_predict_route == self.vertex_ai_health_route:
                raise ValueError("vertex_ai_predict_route and vertex_ai_health_route must differ")
        if not self.allow_sagemaker or not self.sagemaker_safe_port_range:
            return
        low, high = map(int, self.sagemaker_safe_port_range.split("-"))
        for name, port in ports.items():
            if name != "sagemaker_port" and not low <= port <= high:
                raise ValueError(
                    f"{name}: the server cannot listen at port {port}, allowed port range is"
                    f" [{low}, {high}] (sagemaker_safe_port_range)"
                )

    def ports(self) -> dict[str, int]:
        """Setting's name → port of what is served over TCP, in a fixed order."""
        every = {
            "http_port": (self.allow_http, self.http_port),
            "grpc_port": (self.allow_grpc, self.grpc_port),
            "metrics_port": (self.allow_metrics, self.metrics_port),
            "sagemaker_port": (self.allow_sagemaker, self.sagemaker_port),
            "vertex_ai_port": (self.allow_vertex_ai, self.vertex_ai_port),
        }
        return {name: port for name, (allowed, port) in every.items() if allowed}

    @property
    def log_settings(self) -> LogSettings:
        """All that is set of logging."""
        return LogSettings(
            file=str(self.log_file or ""),
            info=self.log_info,
            warning=self.log_warning,
            error=self.log_error,
            verbose=self.log_verbose,
            format=self.log_format,
        )

    @property
    def cache(self) -> CacheConfig:
        """`cache_config` or `response_cache_byte_size`, parsed."""
        if self.response_cache_byte_size:
            return CacheConfig(int(self.response_cache_byte_size))
        return parse_cache_config(self.cache_config)

    @property
    def metrics(self) -> MetricsConfig:
        """`metrics_config`, parsed."""
        return parse_metrics_config(self.metrics_config)

    @property
    def rate_limits(self) -> Mapping[Resource, int]:
        """`rate_limit_resource`, parsed."""
        return parse_rate_limit_resources(self.rate_limit_resource)

    @property
    def tracing(self) -> TraceConfig:
        """`trace_config`, parsed."""
        return parse_trace_config(self.trace_config)

    @property
    def compute_threads(self) -> int:
        """`default_threads`, resolved."""
        return self.default_threads or available_cores()

    @property
    def envoy_concurrency(self) -> int:
        """`envoy_threads`, resolved."""
        return self.envoy_threads or min(MAX_ENVOY_THREADS, available_cores())

    def write(self, path: Path) -> None:
        """Write all settings as JSON into a new file that only this user may read."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(self.model_dump_json())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Settings:
        """What `write` wrote."""
        return cls.model_validate_json(Path(path).read_bytes())


SECTIONS: Final[Mapping[str, type[Section]]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""The file's tables, by name."""


def flagged_settings() -> Iterator[tuple[str, FieldInfo]]:
    """Name and field of all that have a flag: `http_port`, and `access_mode` of the table `access`."""
    for name, field in Settings.model_fields.items():
        if name not in SECTIONS:
            yield name, field
    for section, cls in SECTIONS.items():
        for name, field in cls.flagged():
            yield f"{section}_{name}", field


def flag_of(name: str) -> str:
    """A setting's flag: `http_port` → `--http-port`."""
    return "--" + name.replace("_", "-")
