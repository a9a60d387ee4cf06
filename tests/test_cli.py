from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from penstock import __version__
from penstock.cli import main
from penstock.commands import audit, certs, models, tenants
from penstock.commands.serve import rewrite_arguments
from penstock.config import flagged_settings
from penstock.errors import ConfigError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_version(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument]) == 0
    assert capsys.readouterr().out == f"penstock {__version__}\n"


def test_help_has_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for name, _ in flagged_settings():
        assert "--" + name.replace("_", "-") in shown
    assert "--model-store" in shown
    assert "--http-address" in shown


def commands() -> Iterator[tuple[str, ...]]:
    """All that there are, groups too."""
    yield from ((), ("serve",), ("check",), ("infer",))
    for module in (audit, certs, models, tenants):
        name = module.__name__.rpartition(".")[2]
        yield from ((name, *rest) for rest in _within(typer.main.get_command(module.app)))


def _within(command: Any) -> Iterator[tuple[str, ...]]:
    yield ()
    for name, inner in getattr(command, "commands", {}).items():
        yield from ((name, *rest) for rest in _within(inner))


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_has_no_empty_lines_in_a_row(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert main([*command, "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.strip().splitlines()]
    assert lines and ("", "") not in pairwise(lines)


def test_brackets_in_help_are_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["certs", "issue", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "whose [secrets] say where Vault is" in shown
    assert "[default: 30d for a server, 7d for a client]" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["serve"], 2, "no model repository was given: penstock serve FOLDER"),
        (["serve", "nope"], 1, "there is no such folder"),
        (["serve", "--model-store=nope"], 1, "there is no such folder"),
        (["serve", "file"], 1, "Not a directory"),
        (["serve", "--http-port", "x", "."], 2, "--http-port: expected a whole number"),
        (["serve", "--wrong", "."], 2, "--wrong"),
        (["serve", "--http-port"], 2, "--http-port"),
        (["serve", "--grpc-use-ssl=true", "."], 2, "--grpc-use-ssl: needs --grpc-server-cert and"),
        (["serve", "--grpc-server-cert=a", "."], 2, "--grpc-server-cert: needs --grpc-use-ssl"),
        (["serve", "--host-policy", "x", "."], 2, "--host-policy: not supported yet"),
        (["serve", "--config=nope.toml", "."], 2, "nope.toml: can't be read"),
        (["serve", "--host=::1", "--grpc-address=::", "."], 2, "all ports have one address"),
        (["serve", "--run-dir=nope", "."], 1, "run_dir: "),
        (["serve", "--host=192.0.2.1", "."], 1, "192.0.2.1 is not an address of this machine"),
        (
            ["serve", "--access-mode=required", "--access-tenants-file=.", "."],
            2,
            "expected a file of tenants, and this is no file",
        ),
        (["frobnicate"], 2, "frobnicate"),
        (
            ["certs", "issue", "robot", "x"],
            2,
            "for 'kind': 'robot' is not one of 'server', 'client'",
        ),
        (
            ["serve", "--tls-cert-file", "x", "."],
            2,
            "penstock: --tls-cert-file: tls.cert_file needs",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    (empty_folder / "file").touch()
    free = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    if arguments[0] == "serve":
        arguments = ["serve", *free, *arguments[1:]]
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.startswith("penstock: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_bare_booleans_get_their_value() -> None:
    given = ["--exit-on-error", "repo", "--strict-readiness", "false", "--allow-http=false"]
    assert rewrite_arguments(given) == [
        "--exit-on-error=true",
        "repo",
        "--strict-readiness",
        "false",
        "--allow-http=false",
    ]
    assert rewrite_arguments(["--", "--host-policy"]) == ["--", "--host-policy"]


def test_flags_of_tritons_that_are_missing_are_told() -> None:
    with pytest.raises(ConfigError, match="--host-policy: not supported yet"):
        rewrite_arguments(["--host-policy=x"])
