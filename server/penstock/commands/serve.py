"""`penstock serve`: every setting as a flag, in Triton's spelling where Triton has it."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, get_origin

import typer
from pydantic.fields import FieldInfo

from penstock.access.tenants import TenantStore
from penstock.commands import triton_tls
from penstock.commands.metavars import metavar
from penstock.commands.secret_check import check_secrets
from penstock.commands.triton_tls import rewrite_tls
from penstock.config import Settings, flag_of, flagged_settings
from penstock.config_effects import check_effects
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.logs import configure_logging
from penstock.registry_refs import is_ref
from penstock.supervisor.supervisor import Supervisor
from penstock.telemetry.tracing.array_file import check_writable

ALIASES: Final = {
    "model_repository": ("--model-store",),
    "host": ("--http-address", "--grpc-address", "--metrics-address"),
    "tls_cert_file": (triton_tls.CERT,),
    "tls_key_file": (triton_tls.KEY,),
    "tls_client_ca_file": (triton_tls.ROOT,),
}
"""Setting → further spellings."""

BARE_FLAGS: Final = frozenset(
    flag_of(name) for name, field in flagged_settings() if field.annotation is bool
)
"""Flags that may stand without a value."""

NOT_YET: Final = frozenset(
    {
        "--backend-config",
        "--backend-directory",
        "--buffer-manager-thread-count",
        "--cache-directory",
        "--cuda-memory-pool-byte-size",
        "--disable-auto-complete-config",
        "--enable-peer-access",
        "--grpc-header-forward-pattern",
        "--grpc-http2-max-pings-without-data",
        "--grpc-infer-allocation-pool-size",
        "--grpc-infer-response-compression-level",
        "--grpc-infer-thread-count",
        "--grpc-keepalive-time",
        "--grpc-keepalive-timeout",
        "--grpc-max-connection-age",
        "--grpc-max-connection-age-grace",
        "--grpc-restricted-protocol",
        "--host-policy",
        "--http-header-forward-pattern",
        "--http-restricted-api",
        "--http-thread-count",
        "--id",
        "--min-supported-compute-capability",
        "--model-config-name",
        "--model-load-gpu-limit",
        "--model-namespacing",
        "--pinned-memory-pool-byte-size",
        "--repoagent-directory",
        "--reuse-grpc-port",
        "--reuse-http-port",
        "--sagemaker-thread-count",
        "--vertex-ai-thread-count",
    }
)
"""What Triton's server has beside, and this one has not yet."""

_BOOLEANS: Final = frozenset(("true", "false", "1", "0"))


def rewrite_arguments(arguments: Sequence[str]) -> list[str]:
    """Triton's arguments in a form that typer parses: `--exit-on-error` → `--exit-on-error=true`.

    Raises ConfigError for a flag of Triton's that is not supported yet.
    """
    rewritten: list[str] = []
    arguments = rewrite_tls(arguments)
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*rewritten, *arguments[position:]]
        flag, _, _ = argument.partition("=")
        if flag in NOT_YET:
            raise ConfigError(f"{flag}: not supported yet")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        bare = argument in BARE_FLAGS and following.lower() not in _BOOLEANS
        rewritten.append(f"{argument}=true" if bare else argument)
    return rewritten


def serve(
    repositories: list[str] | None, config: Path | None, **flags: str | list[str] | None
) -> None:
    """Serve models over HTTP and gRPC: those of folders, and those that models:/NAME@ALIAS names in an MLflow registry.

    Every flag can also be set as PENSTOCK_… in the environment, or in penstock.toml
    (--http-port: PENSTOCK_HTTP_PORT, http_port). Flags win over the environment, it over the file.
    """
    settings = load_settings(_given(repositories or [], flags), config)
    check_effects(settings)
    _configure_logging(settings)
    _check_tracing(settings)
    check_secrets(settings)
    _check_tenants(settings)
    raise typer.Exit(asyncio.run(_run(settings)))


def _configure_logging(settings: Settings) -> None:
    try:
        configure_logging(settings.log_settings, sys.stderr)
    except OSError as error:
        raise ConfigError(
            f"{flag_of('log_file')}: {settings.log_file} can't be written: {error.strerror}"
        ) from error


def _check_tracing(settings: Settings) -> None:
    """What only the gateway would find: said before anything is started."""
    tracing = settings.tracing
    if tracing.mode == "opentelemetry" and find_spec("opentelemetry.sdk") is None:
        raise ConfigError(
            f"{flag_of('trace_config')}: mode=opentelemetry needs packages that are not installed:"
            " pip install 'penstock[otel]'"
        )
    if tracing.mode == "triton" and tracing.level:
        try:
            check_writable(tracing.file)
        except OSError as error:
            raise ConfigError(
                f"{flag_of('trace_config')}: {tracing.file} can't be written: {error.strerror}"
            ) from error


def _check_tenants(settings: Settings) -> None:
    """The file of tenants is made where it is missing, so that it is there for `penstock tenants`."""
    if settings.access.mode != "off":
        TenantStore(settings.access.tenants_path).close()


async def _run(settings: Settings) -> int:
    return await Supervisor(settings, sys.stdout).run()


def _given(
    repositories: list[str], flags: dict[str, str | list[str] | None]
) -> dict[str, str | list[str]]:
    """What was given, by setting's name."""
    given = {name: value for name, value in flags.items() if value}
    refs = [*filter(is_ref, repositories), *given.pop("registry_models", [])]
    if refs:
        given["registry_models"] = refs
    folders = [
        *(word for word in repositories if not is_ref(word)),
        *given.pop("model_repository", []),
    ]
    if folders:
        given["model_repository"] = folders
    hosts = given.pop("host", [])
    if len(set(hosts)) > 1:
        raise ConfigError(f"{flag_of('host')}: all ports have one address, got {', '.join(hosts)}")
    if hosts:
        given["host"] = hosts[0]
    return given


def _signature() -> inspect.Signature:
    """`serve` as typer shall see it: a parameter a setting."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    argument = typer.Argument(
        None,
        metavar="[MODEL_REPOSITORY | MODELS:/NAME@ALIAS]...",
        help="Folders of models, in Triton's layout; models of an MLflow registry, as [NAME=]models:/MODEL@ALIAS.",
        show_default=False,
    )
    config = typer.Option(
        None, "--config", metavar="FILE", help="Settings file, in place of ./penstock.toml."
    )
    parameters = [
        inspect.Parameter("repositories", keyword, default=argument, annotation=list[str] | None),
        inspect.Parameter("config", keyword, default=config, annotation=Path | None),
    ]
    for name, field in flagged_settings():
        annotation = list[str] | None if _repeatable(name, field) else str | None
        parameters.append(
            inspect.Parameter(name, keyword, default=_option(name, field), annotation=annotation)
        )
    return inspect.Signature(parameters)


def _option(name: str, field: FieldInfo) -> Any:
    # values stay text: the settings check them all alike, whatever their source
    return typer.Option(
        None,
        flag_of(name),
        *ALIASES.get(name, ()),
        metavar=metavar(name, field),
        help=field.description,
        show_default=_default(field.get_default(call_default_factory=True)),
    )


def _repeatable(name: str, field: FieldInfo) -> bool:
    return name == "host" or get_origin(field.annotation) in (tuple, Mapping)


def _default(value: object) -> str | bool:
    if value is None or value in ((), {}, ""):
        return False
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_signature(function: Callable[..., None], signature: inspect.Signature) -> None:
    vars(function)["__signature__"] = signature


_with_signature(serve, _signature())
