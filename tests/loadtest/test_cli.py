"""The command line: wrong words end with one clear line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from penstock_loadtest.cli import app
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.load import run_program


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--case", "nothing"], "error: --case nothing: no such case"),
        (["--peers", "/nowhere"], "error: --peers /nowhere: no triton.sh there"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], text: str) -> None:
    result = CliRunner().invoke(app, ["peers", *words])
    assert result.exit_code == 1
    assert text in result.output
    assert "Traceback" not in result.output


def test_an_unknown_server_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["peers", "--subject", "apache"])
    assert result.exit_code == 2


def test_a_clients_cpu_time_is_accounted() -> None:
    done = run_program(["bash", "-c", "for i in {1..200000}; do :; done; echo done"], 30)
    assert done.output == "done\n"
    assert 0 < done.cpu_s <= done.wall_s * 2


@pytest.mark.parametrize(
    ("script", "timeout_s", "text"),
    [
        ("echo broken >&2; exit 3", 30, r"bash ended with 3:\nbroken"),
        ("exec sleep 60", 0.1, "did not end"),
    ],
)
def test_a_client_that_fails_is_told(script: str, timeout_s: float, text: str) -> None:
    with pytest.raises(BenchmarkError, match=text):
        run_program(["bash", "-c", script], timeout_s)


def test_a_missing_client_is_told() -> None:
    with pytest.raises(BenchmarkError, match="can't start no-such-program: No such file"):
        run_program(["no-such-program"], 1)
