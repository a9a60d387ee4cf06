"""`penstock serve` on a private folder, for as long as a model is tuned."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from penstock.config import Settings
from penstock.errors import Unavailable
from penstock.locked_folder import locked_folder, remove_abandoned
from penstock.supervisor.child import ends_with_us

READY: Final = "Ctrl-C stops"
"""The end of the banner."""
START_S: Final = 60.0
STOP_S: Final = 30.0
STEP_S: Final = 0.05
SETTINGS: Final = tuple(f"PENSTOCK_{name.upper()}" for name in Settings.model_fields)
PLATFORMS: Final = ("AIP_", "SAGEMAKER_")
"""What variables begin with that would set what this server is to be."""


@asynccontextmanager
async def private_server(repository: Path, folder: Path, threads: int) -> AsyncIterator[int]:
    """The port of its gRPC. Raises Unavailable with what it said when it does not start.

    It has no access control, and listens on the loopback address alone; what it needs is in `folder`.
    """
    out, err, run_dir = folder / "stdout", folder / "stderr", folder / "run"
    # a fresh folder: no penstock.toml lies there
    (folder / "cwd").mkdir()
    run_dir.mkdir()
    flags = ["--model-control-mode=explicit", "--host=127.0.0.1", f"--run-dir={run_dir}"]
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "penstock.cli", "serve", str(repository), *flags, *ports]
    environment = {
        name: v for name, v in os.environ.items() if not name.startswith((*SETTINGS, *PLATFORMS))
    }
    environment["XDG_STATE_HOME"] = str(folder / "state")
    process = _start(
        [*command, f"--default-threads={threads}"], out, err, folder / "cwd", environment
    )
    try:
        await _wait_ready(process, out, err)
        (run,) = run_dir.iterdir()
        yield Settings.read(run / "settings.json").grpc_port
    finally:
        _stop(process)


def _start(
    command: list[str], out: Path, err: Path, cwd: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=environment,
            # Ctrl-C is ours to handle
            start_new_session=True,
            preexec_fn=ends_with_us(signal.SIGTERM),
        )


async def _wait_ready(process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START_S
    while READY not in _text(out):
        late = asyncio.get_running_loop().time() > deadline
        if process.poll() is not None or late:
            raise Unavailable(f"the server to measure with did not start: {_last_line(_text(err))}")
        await asyncio.sleep(STEP_S)


def _last_line(said: str) -> str:
    """Of what a program said before it ended: there it says why."""
    lines = said.split("\n")
    return next(
        (line.strip()[:1000] for line in reversed(lines) if line.strip()), "it said nothing"
    )


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It ends its workers itself; where it does not, they end with it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@contextmanager
def private_folder() -> Iterator[Path]:
    """With a short path, for Unix sockets lie in it. Those of runs that were killed are removed. Raises Unavailable."""
    parent = Path(tempfile.gettempdir())
    prefix = f"penstock-tune-{os.getuid()}-"
    remove_abandoned(parent, prefix)
    folder = parent / f"{prefix}{os.getpid()}"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(folder))
        except OSError as error:
            raise Unavailable(
                f"there is no place for the server to measure with: {error.strerror}: {folder}"
            ) from error
        yield folder
