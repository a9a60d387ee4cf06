"""`penstock models tune`, the whole of it, with hardly any time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_cases import write_decorated
from penstock.tuning.private_server import private_folder
from supervised import MARK, all_gone, eventually, marked

ROOT = Path(__file__).parents[2]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "penstock.cli", "models", "tune", *words]


@pytest.fixture
def private_tmp() -> Iterator[Path]:
    """Where it makes its folder; short, for sockets lie in it."""
    folder = Path("/tmp") / f"pt-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def run(*words: str, tmp: Path) -> subprocess.CompletedProcess[str]:
    mark = uuid.uuid4().hex
    environment = {**os.environ, "TMPDIR": str(tmp), MARK: mark}
    found = subprocess.run(
        command(*words), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert all_gone(mark)
    assert not list(tmp.iterdir())
    return found


def test_digits(tmp_path: Path, private_tmp: Path) -> None:
    """With hardly any time only the backends are compared, which answer the same."""
    shutil.copytree(ROOT / "model_repo" / "digits", tmp_path / "digits")
    before = (tmp_path / "digits" / "config.yaml").read_text()
    words = ("digits", f"--model-repository={tmp_path}", "--seconds=1", "--concurrency=4")
    found = run(*words, "--json", "--dry-run", tmp=private_tmp)
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    trials = [trial for trial in report["trials"] if trial["step"] == "backend"]
    assert [trial["backend"] for trial in trials] == ["onnxruntime", "openvino"]
    assert all(trial["rows_s"] > 0 and not trial["refused"] for trial in trials)
    assert not report["in_time"]
    assert not report["written"]
    assert bool(report["change"]) == (report["best"] != report["now"])
    assert (tmp_path / "digits" / "config.yaml").read_text() == before


def signalled(number: signal.Signals, tmp_path: Path, private_tmp: Path) -> tuple[int, str]:
    """How it ends, and what it has said, when it gets a signal while it measures. No process may be left."""
    write_decorated(tmp_path / "models" / "tiny")
    mark = uuid.uuid4().hex
    words = ("tiny", f"--model-repository={tmp_path / 'models'}", "--seconds=600")
    process = subprocess.Popen(
        command(*words),
        env={**os.environ, "TMPDIR": str(private_tmp), MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # the server, its front and a worker
        eventually(lambda: len(marked(mark)) > 3, "no server was started")
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    eventually(lambda: all_gone(mark), "a process is left")
    return process.returncode, said


def test_ctrl_c_leaves_nothing(tmp_path: Path, private_tmp: Path) -> None:
    status, said = signalled(signal.SIGINT, tmp_path, private_tmp)
    assert status == 130, said
    assert "Traceback" not in said
    assert not list(private_tmp.iterdir())


def test_a_kill_leaves_no_process_and_the_next_run_no_folder(
    tmp_path: Path, private_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled(signal.SIGKILL, tmp_path, private_tmp)
    monkeypatch.setattr(tempfile, "tempdir", str(private_tmp))
    with private_folder() as folder:
        assert [path for path in private_tmp.iterdir() if path.is_dir()] == [folder]
    assert not list(private_tmp.iterdir())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("other",), "no model 'other' in"),
        (("tiny", "--shape=A:x"), "expected INPUT:SIZE"),
    ],
)
def test_wrong_words(words: tuple[str, ...], text: str, tmp_path: Path, private_tmp: Path) -> None:
    write_decorated(tmp_path / "tiny")
    found = run(*words, f"--model-repository={tmp_path}", tmp=private_tmp)
    assert found.returncode in (1, 2)
    assert text in " ".join(found.stderr.replace("│", "").split())
