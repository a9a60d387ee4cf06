"""Triton's flags of TLS."""

from __future__ import annotations

import pytest

from penstock.commands.triton_tls import rewrite_tls
from penstock.errors import ConfigError

FILES = ["--grpc-server-cert=c", "--grpc-server-key", "k"]
REQUIRE = "--tls-client-auth=require"


@pytest.mark.parametrize(
    ("arguments", "rewritten"),
    [
        (["models", "--http-port=1"], ["models", "--http-port=1"]),
        (["--grpc-use-ssl", *FILES], FILES),
        (["--grpc-use-ssl=true", *FILES], FILES),
        ([*FILES, "--grpc-use-ssl", "1", "models"], [*FILES, "models"]),
        (["--grpc-use-ssl=false"], []),
        (["--grpc-use-ssl-mutual", *FILES], [*FILES, REQUIRE]),
        (["--grpc-use-ssl", *FILES, "--grpc-use-ssl-mutual=false"], FILES),
        (
            ["--grpc-use-ssl-mutual", "true", *FILES, "--", "--grpc-use-ssl"],
            [*FILES, REQUIRE, "--", "--grpc-use-ssl"],
        ),
        (["--grpc-use-ssl", "--tls-cert-file=c"], ["--tls-cert-file=c"]),
    ],
)
def test_rewritten(arguments: list[str], rewritten: list[str]) -> None:
    assert rewrite_tls(arguments) == rewritten


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grpc-use-ssl"], "--grpc-use-ssl: needs --grpc-server-cert and --grpc-server-key"),
        (FILES, "--grpc-server-cert: needs --grpc-use-ssl, or --grpc-use-ssl-mutual"),
        (["--grpc-use-ssl=false", *FILES], "there would be no TLS"),
        (["--grpc-root-cert=r"], "--grpc-root-cert: needs --grpc-use-ssl"),
        (["--grpc-use-ssl=maybe"], "--grpc-use-ssl: expected true or false (got 'maybe')"),
    ],
)
def test_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rewrite_tls(arguments)
    assert words in str(caught.value)
