"""Triton's flags of TLS, which are of gRPC alone there: in this server's, whose TLS is of all ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.errors import ConfigError

CERT: Final = "--grpc-server-cert"
KEY: Final = "--grpc-server-key"
ROOT: Final = "--grpc-root-cert"
USE: Final = "--grpc-use-ssl"
MUTUAL: Final = "--grpc-use-ssl-mutual"
FLAGS: Final = (CERT, KEY, ROOT, USE, MUTUAL)

TRUE: Final = ("true", "1")
FALSE: Final = ("false", "0")


def rewrite_tls(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--grpc-use-ssl-mutual` as `--tls-client-auth=require`, and without `--grpc-use-ssl`.

    Raises ConfigError where Triton would not speak TLS, though it was given a certificate, or could not.
    """
    rewritten: list[str] = []
    on: dict[str, bool] = {}
    rest = list(arguments)
    while rest and rest[0] != "--":
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if flag not in (USE, MUTUAL):
            rewritten.append(argument)
            continue
        if not equals:
            value = rest.pop(0) if rest and rest[0].lower() in (*TRUE, *FALSE) else "true"
        if value.lower() not in (*TRUE, *FALSE):
            raise ConfigError(f"{flag}: expected true or false (got {value!r})")
        on[flag] = value.lower() in TRUE
    given = {argument.partition("=")[0] for argument in rewritten}
    _check(given, on)
    if on.get(MUTUAL):
        rewritten.append("--tls-client-auth=require")
    return [*rewritten, *rest]


def _check(given: set[str], on: dict[str, bool]) -> None:
    wanted = on.get(USE) or on.get(MUTUAL)
    if wanted and not {CERT, "--tls-cert-file"} & given:
        raise ConfigError(f"{USE}: needs {CERT} and {KEY}")
    files = [flag for flag in (CERT, KEY, ROOT) if flag in given]
    if files and not wanted:
        raise ConfigError(f"{files[0]}: needs {USE}, or {MUTUAL}: there would be no TLS")
