"""The README's commands and programs, as they stand there, and what it shows of their output.

The ports are rewritten: the tests' server has free ones.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from mlflow import MlflowClient

import doc_tables
from markdown import Block, blocks
from served import END_OF_BANNER, Served
from supervised import MARK, all_gone, eventually

ROOT: Final = doc_tables.ROOT
BLOCKS: Final = blocks(doc_tables.README)

SERVE: Final = Block("bash", "scripts/serve\n")
TEST: Final = Block("bash", "scripts/test\n")
INSTALL: Final = Block("bash", "pip install .\npenstock serve model_repo\n")
(SECURE,) = [b for b in BLOCKS if b.language == "bash" and "penstock certs init" in b.text]
SECURELY: Final = [b for b in BLOCKS if b.language == "bash" and "https://" in b.text]
(TRAIN,) = [b for b in BLOCKS if b.language == "bash" and "penstock-train" in b.text]
LINEAGE: Final = Block("bash", "penstock models lineage digits\n")
(ROLLOUT,) = [b for b in BLOCKS if b.language == "bash" and "penstock rollout" in b.text]
APART: Final = (SERVE, TEST, INSTALL, SECURE, *SECURELY, TRAIN, LINEAGE, ROLLOUT)
ASK: Final = [b for b in BLOCKS if b.language == "bash" and b not in APART]
(INFER,) = [b for b in ASK if "penstock infer" in b.text]
PROGRAMS: Final = [b for b in BLOCKS if b.language == "python"]
OUTPUT: Final = {
    before: after.text for before, after in pairwise(BLOCKS) if after.language == "text"
}

NO_PENSTOCK_ON_PATH: Final = (
    'command -v penstock >/dev/null || penstock() { python -m penstock.cli "$@"; }\n'
    'command -v penstock-train >/dev/null || penstock-train() { python -m penstock_training.cli "$@"; }\n'
)
"""For environments that have the packages on their path, and not installed."""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """The example models, served from the root of the repository as a newcomer does."""
    served = Served(ROOT / "model_repo", "auto", cwd=ROOT)
    try:
        yield served.wait_ready()
    finally:
        served.close()


def test_it_has_the_commands_that_are_tested_apart() -> None:
    assert {SERVE, TEST, INSTALL} <= set(BLOCKS)
    assert PROGRAMS
    assert {block.language for block in BLOCKS} == {"bash", "python", "text"}


@pytest.mark.parametrize("block", ASK, ids=lambda block: block.text.split("\n")[0][:40])
def test_command(block: Block, server: Served) -> None:
    script = NO_PENSTOCK_ON_PATH + rewritten(block.text, server)
    printed = run(["bash", "-euo", "pipefail", "-c", script])
    if block in OUTPUT:
        assert comparable(printed) == comparable(OUTPUT[block])


def test_a_secured_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands one after the other, in a folder of their own; the last one is the server."""
    (tmp_path / "model_repo").symlink_to(ROOT / "model_repo")
    monkeypatch.setenv("PENSTOCK_ACCESS_TENANTS_FILE", str(tmp_path / "tenants.db"))
    before, serving, command = SECURE.text.partition("penstock serve ")
    assert serving
    run(["bash", "-euo", "pipefail", "-c", NO_PENSTOCK_ON_PATH + before], cwd=tmp_path)
    one_line = command.replace("\\\n", "").replace("$PWD", str(tmp_path))
    flags = shlex.split(one_line)
    served = Served(tmp_path / flags[0], "auto", *flags[1:], cwd=tmp_path)
    try:
        served.wait_ready()
        # by name, as the certificate has it
        port = f"localhost:{served.settings.http_port}"
        for block, expected in zip(SECURELY, (OUTPUT[SECURELY[0]], OUTPUT[INFER]), strict=True):
            script = NO_PENSTOCK_ON_PATH + block.text.replace("localhost:8000", port)
            printed = run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path)
            assert comparable(printed) == comparable(expected)
    finally:
        served.close()


@pytest.mark.timeout(300)
def test_training_and_a_roll_out(tmp_path: Path) -> None:
    """Its commands one after the other, in a folder of their own; for three epochs in one process only, and with short
    steps."""
    config = Path("training", "configs", "digits.toml")
    (tmp_path / config).parent.mkdir(parents=True)
    text = (ROOT / config).read_text()
    for long, short in (
        ("\nepochs = 30\n", "\nepochs = 3\n"),
        ("\nprocesses = 2 ", "\nprocesses = 1 "),
    ):
        assert long in text
        text = text.replace(long, short)
    (tmp_path / config).write_text(text)
    setup, activate, *training, serving = TRAIN.text.splitlines()
    assert (setup, activate) == ("scripts/setup train", "source .venv/bin/activate")
    run_script("\n".join(training), tmp_path)
    registry = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    first = registry.get_model_version_by_alias("digits", "challenger")
    assert first.run_id is not None
    assert first.source is not None
    registry.set_registered_model_alias("digits", "champion", first.version)
    flags = shlex.split(serving.replace("$PWD", str(tmp_path)).replace("@challenger", "@champion"))
    (tmp_path / "penstock.toml").write_text("[rollouts.guards]\nmin_windows = 1\n")
    quick = ["--registry-poll-secs=0.5", "--rollouts-step-secs=0.1", "--rollouts-min-requests=1"]
    served = Served(Path(flags[2]), "auto", *flags[3:], *quick, cwd=tmp_path)
    try:
        # its agent imports MLflow, which takes long on a busy machine
        served.wait_ready(90)
        url = f" --url http://{served.http}\n"
        assert first.run_id in run_script(LINEAGE.text.strip() + url, tmp_path)
        # the same files: it can't be worse
        second = registry.create_model_version("digits", first.source, first.run_id)
        registry.set_registered_model_alias("digits", "challenger", second.version)
        with asking(served):
            run_script(ROLLOUT.text.strip() + url, tmp_path)
        now = registry.get_model_version_by_alias("digits", "champion")
        assert now.version == second.version
    finally:
        served.close()


@contextmanager
def asking(served: Served) -> Iterator[None]:
    """Requests come, one after the other."""
    ended = threading.Event()
    image = {"name": "IMAGE", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}

    def ask() -> None:
        while not ended.is_set():
            assert served.infer("digits", {"inputs": [image]}).status == 200

    with ThreadPoolExecutor(1) as threads:
        client = threads.submit(ask)
        try:
            yield
        finally:
            ended.set()
            client.result(30)


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.text.split("\n")[0][:40])
def test_program(block: Block, server: Served) -> None:
    lines = [line for line in block.text.splitlines() if line]
    assert len(lines) <= 10
    printed = run([sys.executable, "-c", rewritten(block.text, server)])
    assert comparable(printed) == comparable(OUTPUT[block])


@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv",
    reason="scripts/serve sets up .venv: tested where the tests run in it, by scripts/test",
)
@pytest.mark.timeout(300)
def test_the_command_that_sets_up_and_serves() -> None:
    mark = uuid.uuid4().hex
    ports = {f"PENSTOCK_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    with tempfile.TemporaryDirectory(prefix="pt-") as folder:
        out = Path(folder, "out")
        with out.open("w") as stdout:
            process = subprocess.Popen(
                ["bash", "-c", SERVE.text],
                cwd=ROOT,
                env={**os.environ, **ports, MARK: mark, "PENSTOCK_RUN_DIR": folder},
                stdout=stdout,
                start_new_session=True,
            )
        try:
            eventually(
                lambda: END_OF_BANNER in out.read_text() or process.poll() is not None, "no banner"
            )
            assert comparable(out.read_text()) == comparable(OUTPUT[SERVE])
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
            process.wait()
    eventually(lambda: all_gone(mark), "processes are left")


def test_the_command_that_sets_up_and_tests_is_there() -> None:
    # running it here would run this test again, without end: CI runs it
    script = ROOT / TEST.text.strip()
    assert os.access(script, os.X_OK)
    run(["bash", "-n", str(script)])


@pytest.mark.timeout(300)
def test_plain_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install .` into a folder of its own; the dependencies are those that are installed already."""
    folder = tmp_path / "installed"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={folder}", "."])
    monkeypatch.setenv("PYTHONPATH", str(folder))
    where = [sys.executable, "-P", "-c", "import penstock; print(penstock.__file__)"]
    assert Path(run(where).strip()).is_relative_to(folder)
    served = Served(ROOT / "model_repo", "auto")
    try:
        served.wait_ready()
        assert served.get("/v2/models/digits/ready").status == 200
    finally:
        served.close()


@pytest.mark.parametrize(
    ("file", "functions"),
    [
        ("server/penstock/gateway/grpc_asgi.py", ["GrpcOverAsgi.__call__"]),
        ("server/penstock/gateway/grpc_service.py", ["GrpcService.infer"]),
        ("server/penstock/gateway/inference.py", ["Inference.submit"]),
        ("server/penstock/workers/worker.py", ["Worker.step", "Worker._execute"]),
    ],
)
def test_the_central_functions_are_where_it_says(file: str, functions: list[str]) -> None:
    assert f"]({file})" in doc_tables.README.read_text()
    text = (ROOT / file).read_text()
    for function in functions:
        name, method = function.split(".")
        assert re.search(rf"^class {name}\b.*^    (async )?def {method}\(", text, re.M | re.S)


def run_script(script: str, cwd: Path) -> str:
    """As a person types it."""
    return run(["bash", "-euo", "pipefail", "-c", NO_PENSTOCK_ON_PATH + script], cwd)


def run(command: list[str], cwd: Path = ROOT) -> str:
    """Standard output of a command that must succeed, by default run from the root of the repository."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def rewritten(text: str, server: Served) -> str:
    """A command or program, for this server and the running environment."""
    for old, new in (
        ("localhost:8000", server.http),
        ("localhost:8001", server.grpc),
        ("penstock infer ", f"penstock infer --url http://{server.http} "),
        ("source .venv/bin/activate\n", f"source {sys.prefix}/bin/activate\n"),
    ):
        text = text.replace(old, new)
    return text


def comparable(text: str) -> list[str]:
    """The lines of an output, whose figures are another machine's."""
    return [re.sub(r"\d+(\.\d+)*", "#", line).rstrip() for line in text.strip().splitlines()]
