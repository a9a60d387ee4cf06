"""Who opens a server to the network is told what stands open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.access_config import AccessSettings
from penstock.config import Settings
from penstock.supervisor.exposure import exposures
from penstock.tls_config import TlsSettings

TLS = TlsSettings(cert_file=Path("/c"), key_file=Path("/k"))
REQUIRED = AccessSettings(mode="required")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_on_loopback_nothing_does(host: str) -> None:
    assert not list(exposures(Settings(host=host)))


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({}, ["everybody may run every model", "without TLS: requests and answers can be read"]),
        ({"tls": TLS}, ["everybody may run every model"]),
        ({"access": REQUIRED}, ["requests and answers, and the credentials with them, can"]),
        ({"access": REQUIRED, "tls": TLS}, []),
        (
            {"tls": TLS, "model_control_mode": "explicit", "allow_client_shm": True},
            ["load models, which is to run programs here, read and write what lies in /dev/shm"],
        ),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7"])
def test_on_a_network_it_is_named(host: str, given: dict[str, Any], texts: list[str]) -> None:
    lines = list(exposures(Settings(host=host, **given)))
    assert len(lines) == len(texts)
    for line, text in zip(lines, texts, strict=True):
        assert text in line
        assert host in line
