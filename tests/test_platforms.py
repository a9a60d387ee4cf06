"""What cloud platforms say in the environment, and where it stands among the other sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.platforms import platform_settings

VERTEX = {
    "AIP_MODE": "PREDICTION",
    "AIP_PREDICT_ROUTE": "/predict",
    "AIP_HEALTH_ROUTE": "/health",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(monkeypatch: pytest.MonkeyPatch, *, flags: object = None, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(flags if isinstance(flags, dict) else {})


def test_an_environment_that_says_nothing() -> None:
    assert platform_settings({"PATH": "/bin", "AIP_MODE": "", "SAGEMAKER_BIND_TO_PORT": ""}) == {}


@pytest.mark.extension("vertex_ai")
def test_vertex_ai(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    storage = str(empty_folder / "models")
    settings = load(monkeypatch, **VERTEX, AIP_HTTP_PORT="9000", AIP_STORAGE_URI=storage)
    assert settings.ports() == {"metrics_port": 8002, "vertex_ai_port": 9000}
    assert settings.vertex_ai_predict_route == "/predict"
    assert settings.model_repository == (empty_folder / "models",)
    assert settings.host == "0.0.0.0"


@pytest.mark.extension("vertex_ai")
def test_our_own_variables_and_flags_win(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    (empty_folder / "penstock.toml").write_text("vertex_ai_port = 1\nmetrics_port = 2\n")
    settings = load(
        monkeypatch,
        **VERTEX,
        AIP_HTTP_PORT="9000",
        AIP_STORAGE_URI="gs://not/asked",
        PENSTOCK_ALLOW_HTTP="true",
        PENSTOCK_HOST="127.0.0.1",
        flags={"model_repository": ["/mine"]},
    )
    assert settings.ports() == {"http_port": 8000, "metrics_port": 2, "vertex_ai_port": 9000}
    assert settings.host == "127.0.0.1"
    assert settings.model_repository == (Path("/mine"),)


@pytest.mark.extension("vertex_ai")
def test_another_mode_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, AIP_MODE="TRAINING", AIP_STORAGE_URI="gs://x", AIP_HTTP_PORT="1")
    assert not settings.allow_vertex_ai
    assert settings.allow_http
    assert settings.model_repository == ()


@pytest.mark.extension("vertex_ai")
@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"AIP_HEALTH_ROUTE": ""}, "AIP_HEALTH_ROUTE is not defined for Vertex AI endpoint"),
        ({"AIP_PREDICT_ROUTE": ""}, "AIP_PREDICT_ROUTE is not defined for Vertex AI endpoint"),
        ({"AIP_PREDICT_ROUTE": "x"}, "AIP_PREDICT_ROUTE: expected text that matches"),
        ({"AIP_PREDICT_ROUTE": "/health"}, "must differ"),
        ({"AIP_HTTP_PORT": "many"}, "AIP_HTTP_PORT: expected a whole number"),
        ({"AIP_HTTP_PORT": "8002"}, "metrics_port and vertex_ai_port are both 8002"),
        (
            {"AIP_STORAGE_URI": "gs://bucket/models"},
            "AIP_STORAGE_URI: gs:// can't be read, expected a local folder (got 'gs://bucket/models')",
        ),
    ],
)
def test_what_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(monkeypatch, **{**VERTEX, **variables})
    assert text in str(raised.value)


@pytest.mark.extension("sagemaker")
def test_sagemaker(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        SAGEMAKER_BIND_TO_PORT="9001",
        SAGEMAKER_SAFE_PORT_RANGE="8000-8002",
        SAGEMAKER_TRITON_DEFAULT_MODEL_NAME="digits",
    )
    assert settings.ports()["sagemaker_port"] == 9001
    assert settings.sagemaker_default_model == "digits"
    assert settings.host == "0.0.0.0"


@pytest.mark.extension("sagemaker")
def test_a_default_model_alone_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, SAGEMAKER_TRITON_DEFAULT_MODEL_NAME="digits")
    assert not settings.allow_sagemaker
    assert settings.host == "127.0.0.1"


@pytest.mark.extension("sagemaker")
@pytest.mark.parametrize("port", [9000, 0])
def test_ports_out_of_the_safe_range(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    with pytest.raises(ConfigError) as raised:
        load(
            monkeypatch,
            SAGEMAKER_BIND_TO_PORT="9001",
            SAGEMAKER_SAFE_PORT_RANGE="8000-8002",
            flags={"metrics_port": port},
        )
    assert (
        f"metrics_port: the server cannot listen at port {port}, allowed port range is [8000, 8002]"
        in str(raised.value)
    )


@pytest.mark.extension("sagemaker")
def test_a_range_is_two_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="SAGEMAKER_SAFE_PORT_RANGE: expected text that matches"):
        load(monkeypatch, SAGEMAKER_SAFE_PORT_RANGE="8000")
