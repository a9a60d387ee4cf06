"""What one kind of place says: a secret, and for how long it need not be asked again."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from penstock.errors import ConfigError
from penstock.secrets.files import SecretFiles
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read."""

    secret: Secret
    fresh_s: float
    """When it is to be looked at again, counted from now."""


class Store(Protocol):
    """One kind of place."""

    def read(self, ref: SecretRef) -> Reading:
        """Raises ConfigError that names the reference and what is wrong with it."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class FileStore:
    """`file:/path`"""

    def __init__(self, *, strict: bool, watch_s: float) -> None:
        self._files: Final = SecretFiles(strict=strict)
        self._watch_s: Final = watch_s

    def read(self, ref: SecretRef) -> Reading:
        return Reading(self._files.read(ref.path), self._watch_s)

    def close(self) -> None:
        """Nothing is kept open."""


class EnvironmentStore:
    """`env:NAME`: a process's variables don't change from outside."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables: Final = variables

    def read(self, ref: SecretRef) -> Reading:
        value = self._variables.get(ref.path, "")
        if not value:
            state = "empty" if ref.path in self._variables else "not set"
            raise ConfigError(f"{ref}: the variable is {state}")
        return Reading(Secret(os.fsencode(value)), math.inf)

    def close(self) -> None:
        """Nothing is kept open."""
