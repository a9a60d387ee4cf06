"""What cloud platforms say in the environment of the containers that they run: settings below ours, above defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from penstock.errors import ConfigError

EVERY_ADDRESS: Final = "0.0.0.0"


class PlatformSetting(NamedTuple):
    """A setting's value, and the variable that says so."""

    value: object
    variable: str


def platform_settings(
    environment: Mapping[str, str], given: Collection[str] = ()
) -> dict[str, PlatformSetting]:
    """What the environment says, by setting's name, of those that are not `given` by who counts more.

    Raises ConfigError on what can't be done.
    """
    found = {**_sagemaker(environment), **_vertex_ai(environment)}
    found = {name: setting for name, setting in found.items() if name not in given}
    if storage := found.get("model_repository"):
        _check_local(str(storage.value))
        found["model_repository"] = PlatformSetting((storage.value,), storage.variable)
    return found


def _sagemaker(environment: Mapping[str, str]) -> dict[str, PlatformSetting]:
    found = _renamed(
        environment,
        {
            "SAGEMAKER_BIND_TO_PORT": "sagemaker_port",
            "SAGEMAKER_SAFE_PORT_RANGE": "sagemaker_safe_port_range",
            "SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": "sagemaker_default_model",
        },
    )
    if "sagemaker_port" in found:
        variable = found["sagemaker_port"].variable
        found["allow_sagemaker"] = PlatformSetting(True, variable)
        found["host"] = PlatformSetting(EVERY_ADDRESS, variable)
    return found


def _vertex_ai(environment: Mapping[str, str]) -> dict[str, PlatformSetting]:
    found = _renamed(
        environment,
        {
            "AIP_HTTP_PORT": "vertex_ai_port",
            "AIP_PREDICT_ROUTE": "vertex_ai_predict_route",
            "AIP_HEALTH_ROUTE": "vertex_ai_health_route",
            "AIP_STORAGE_URI": "model_repository",
        },
    )
    if environment.get("AIP_MODE") != "PREDICTION":
        # the models of some other program, then
        found.pop("model_repository", None)
        return found
    mode = "AIP_MODE"
    return {
        **found,
        "allow_vertex_ai": PlatformSetting(True, mode),
        # as in Triton: what the platform doesn't ask for stays closed
        "allow_http": PlatformSetting(False, mode),
        "allow_grpc": PlatformSetting(False, mode),
        "host": PlatformSetting(EVERY_ADDRESS, mode),
    }


def _check_local(uri: str) -> None:
    scheme, found, _ = uri.partition("://")
    if found:
        raise ConfigError(
            f"AIP_STORAGE_URI: {scheme}:// can't be read, expected a local folder (got {uri!r}):"
            " copy the models into the image, or mount the bucket"
        )


def _renamed(
    environment: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, PlatformSetting]:
    """The settings of those variables that are there and not empty."""
    return {
        setting: PlatformSetting(environment[variable], variable)
        for variable, setting in names.items()
        if environment.get(variable)
    }
