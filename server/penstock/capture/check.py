"""Whether records can be kept as the settings say, looked at before anything is served."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Final

from penstock.capture.redaction import checked_key
from penstock.capture_config import CaptureSettings
from penstock.errors import ConfigError
from penstock.secrets_config import SecretRef

_NEEDS: Final = {"parquet": ("pyarrow",), "delta": ("pyarrow", "deltalake")}


def check_capture(settings: CaptureSettings, read: Callable[[SecretRef], bytes]) -> None:
    """Makes the folder where it is missing. It blocks. Raises ConfigError."""
    folder = settings.folder
    if folder is None:
        return
    for package in _NEEDS[settings.format]:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"capture.folder: what is captured is written by the package {package}, which is not installed:"
                " pip install 'penstock[capture]'"
                + (" deltalake" if package == "deltalake" else "")
            )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"capture.folder: {folder}: can't be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"capture.folder: {folder}: can't be written")
    if settings.hash_key is not None:
        checked_key(read(settings.hash_key))
