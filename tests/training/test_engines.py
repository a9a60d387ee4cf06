"""`penstock-train` for real: torchrun and Ray start processes, and start them again when one was killed."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_training import rank
from penstock_training.cli import main
from penstock_training.run_folder import RunFolder
from penstock_training.stopping import StopSignal
from supervised import MARK, eventually, marked
from tiny_run import RECIPE, curve, run_here, tiny

CONFIG = f"""\
[recipe]
name = "{RECIPE}"
[run]
folder = "run"
device = "cpu"
processes = 2
threads = 1
[training]
epochs = 3
batch_size = 32
micro_batch_size = 8
clip_norm = 1.0
[optimizer]
learning_rate = 0.02
[progress]
log_every_steps = 1
[evaluation]
best = "accuracy"
[checkpoints]
every_steps = 3
"""


class Started:
    """`penstock-train` in a process of its own; what it starts is known by a mark."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny.toml").write_text(CONFIG)
        self.run = RunFolder(folder / "run")
        self.mark = f"train-{os.getpid()}-{folder.name}"
        # sockets lie in it, whose paths may not be long
        self.scratch = Path(tempfile.mkdtemp(dir="/tmp"))
        # Ray keeps a token at home
        home = {"HOME": str(folder), "TMPDIR": str(self.scratch), MARK: self.mark}
        command = [
            sys.executable,
            "-m",
            "penstock_training.cli",
            str(folder / "tiny.toml"),
            *arguments,
        ]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **home},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def until_it_trains(self) -> None:
        assert self.process.stdout is not None
        while not self.said.splitlines()[-1:] or not self.said.splitlines()[-1].startswith("step "):
            self.said += self.process.stdout.readline()
            assert self.process.poll() is None, self.said

    def ended(self) -> tuple[int, str]:
        """(exit code, all that it said). Nothing of it is left."""
        rest, _ = self.process.communicate()
        eventually(lambda: not marked(self.mark), "processes are left")
        self.scratch.rmdir()
        return self.process.returncode, self.said + rest

    def kill(self) -> None:
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Started]]:
    all_of_them: list[Started] = []
    yield all_of_them
    for each in all_of_them:
        each.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_here(tiny(tmp_path_factory.mktemp("undisturbed") / "run"))


def assert_whole(train: Started, said: str, undisturbed: RunFolder) -> None:
    """It said what it should, left what it should, and its curve is that of one process that nobody disturbed."""
    assert "2 processes (ddp) on cpu, 24 steps" in said
    finished = r"^finished: step 24, the best is step \d+: loss .* accuracy"
    assert re.search(finished, said, re.MULTILINE), said
    assert "Traceback" not in said
    for name in ("train/loss", "validation/loss"):
        assert curve(train.run, name) == pytest.approx(curve(undisturbed, name), rel=1e-4)
    left = {path.name for path in train.run.path.iterdir() if path.name[0] != "."} - {"killed"}
    assert left == {"checkpoints", "metrics.jsonl", "outcome.json", "run.json"}


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_killed_process_is_started_again_and_the_curve_goes_on(
    tmp_path: Path, started: list[Started], undisturbed: RunFolder
) -> None:
    kill = ["--set", "recipe.options.kill_rank=1", "--set", "recipe.options.kill_at=22"]
    train = Started(tmp_path, *kill)
    started.append(train)
    code, said = train.ended()
    assert code == 0, said
    assert "process 1 was killed by signal 9" in said
    # that follows from it
    assert "has lost the others" not in said
    assert "2 processes (ddp) on cpu, goes on after step 9 of 24, restart 1" in said
    assert_whole(train, said, undisturbed)


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_ray_trains_the_same(
    tmp_path: Path, started: list[Started], undisturbed: RunFolder
) -> None:
    train = Started(tmp_path, "--engine", "ray")
    started.append(train)
    code, said = train.ended()
    assert code == 0, said
    assert_whole(train, said, undisturbed)


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_sigterm_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, started: list[Started]) -> None:
    train = Started(tmp_path, "--set", "recipe.options.step_s=0.05", "--set", "training.epochs=100")
    started.append(train)
    train.until_it_trains()
    # only the launcher is told
    train.process.send_signal(signal.SIGTERM)
    code, said = train.ended()
    assert code == 130, said
    assert "stops after a checkpoint; once more: at once" in said
    outcome, newest = train.run.outcome(), train.run.checkpoints.newest()
    assert outcome is not None and outcome.status == "stopped" and newest is not None
    assert f"stopped: after step {newest.step}; --resume goes on with it" in said
    assert "Traceback" not in said


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_reason_of_a_failure_is_told_once(tmp_path: Path, started: list[Started]) -> None:
    train = Started(tmp_path, "--processes", "1", "--set", "training.batch_size=320")
    started.append(train)
    code, said = train.ended()
    assert code == 1
    assert said.splitlines() == [
        "penstock-train: the recipe has 256 training rows, fewer than training.batch_size (320)"
    ]


def lost(
    monkeypatch: pytest.MonkeyPatch,
    folder: RunFolder,
    signals: StopSignal,
    last_words_s: float = 30,
) -> str:
    """What a process says when it has lost the others."""

    def train(*_: object) -> None:
        raise RuntimeError(
            "[/pytorch/gloo/pair.cc:1] Connection closed by peer [127.0.0.1]:1. Why?"
        )

    monkeypatch.setattr(rank, "train", train)
    monkeypatch.setenv("RANK", "1")
    out = io.StringIO()
    code = rank.main(folder.path, signals, out, last_words_s=last_words_s)
    assert code == rank.EXIT_FAILED
    return out.getvalue()


def test_a_process_that_has_lost_the_others_says_so_where_nobody_knows_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = lost(monkeypatch, RunFolder(tmp_path), StopSignal(), last_words_s=0.01)
    assert said == "process 1 has lost the others: Connection closed by peer [127.0.0.1]:1\n"


@pytest.mark.parametrize("who", ["the one that failed", "the launcher"])
def test_a_process_that_has_lost_the_others_leaves_it_to_who_knows_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    folder, signals = RunFolder(tmp_path), StopSignal()

    def tell(_: float) -> None:
        if who == "the launcher":
            signals.received = True
        else:
            folder.fail("the disk is full")

    monkeypatch.setattr("penstock_training.rank.time.sleep", tell)
    assert lost(monkeypatch, folder, signals) == ""


def test_who_asks_twice_does_not_wait() -> None:
    program = """
        import signal, time
        from penstock_training.stopping import StopSignal
        signals = StopSignal()
        signals.listen()
        print("ready", flush=True)
        while not signals.received:
            time.sleep(0.01)
        print("asked", flush=True)
        signal.pause()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130


def test_processes_do_not_outlive_their_launcher() -> None:
    """The kernel tells them, and they stop as if they had been asked to."""
    child = """
        import time
        from penstock_training.stopping import StopSignal, stop_with_launcher
        signals = StopSignal()
        signals.listen()
        stop_with_launcher()
        print("ready", flush=True)
        while not signals.received:
            time.sleep(0.01)
        print("stopped", flush=True)
    """
    launcher = f"""
        import subprocess, sys
        subprocess.run([sys.executable, "-c", {textwrap.dedent(child)!r}])
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(launcher)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.stdout.read() == "stopped\n"
    process.communicate()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.toml"], "none.toml: can't be read"),
        ([], "Missing argument"),
        (
            ["{config}", "--engine", "slurm"],
            "--set run.engine: expected 'torchrun' or 'ray' (got 'slurm')",
        ),
        (
            ["{config}", "--processes", "-1"],
            "--set run.processes: expected a number greater than or equal to 0",
        ),
        (["{config}", "--set", "run.folder=/proc/none"], "run.folder: /proc/none can't be written"),
        (["{config}", "--set", "run.nodes=2"], "run.rendezvous is needed with several run.nodes"),
    ],
)
def test_what_was_used_wrongly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    code = main([argument.format(config=config) for argument in arguments])
    assert told in capsys.readouterr().err
    assert code == 2
