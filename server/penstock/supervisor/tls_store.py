"""Writes what TLS is spoken with to where the fronts read it: all in one moment, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from penstock.errors import ConfigError
from penstock.gateway.envoy_tls import client_ca_secret, server_secret
from penstock.gateway.tls_context import make_context
from penstock.gateway.tls_files import TlsFiles
from penstock.supervisor.tls_material import TlsMaterial
from penstock.tls_config import TlsSettings

KEPT: Final = 3
"""So many changes are there: a front may be reading the last but one."""


class TlsStore:
    """The run's folder of it, which nobody else may enter."""

    def __init__(self, settings: TlsSettings, files: TlsFiles) -> None:
        self._settings = settings
        self._files = files
        self._written: list[Path] = []
        self._number = 0
        files.folder.mkdir(mode=0o700)

    def put(self, material: TlsMaterial) -> None:
        """From now on, this is it. Raises ConfigError when OpenSSL does not take it: all is as before then."""
        self._number += 1
        new = TlsFiles(self._files.folder, f"..{self._number}")
        try:
            _write_all(new, material)
            make_context(self._settings, new)
            link = new.folder / "..link"
            link.symlink_to(new.within)
            os.replace(link, self._files.link)
        except OSError as error:
            shutil.rmtree(new.link, ignore_errors=True)
            reason = getattr(error, "reason", "") or error.strerror
            raise ConfigError(
                f"tls.cert_file: {self._settings.cert_file} can't be used: {reason}"
            ) from error
        self._written.append(new.link)
        while len(self._written) > KEPT:
            shutil.rmtree(self._written.pop(0), ignore_errors=True)


def _write_all(files: TlsFiles, material: TlsMaterial) -> None:
    files.link.mkdir(mode=0o700)
    _write(files.certificates, material.certificates)
    _write(files.key, material.key)
    _write(files.client_ca, material.client_ca)
    _write(files.sds_server, server_secret(material.certificates, material.key))
    _write(files.sds_client_ca, client_ca_secret(material.client_ca))


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
