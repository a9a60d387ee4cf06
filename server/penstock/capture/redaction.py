"""What is told of tenants and tensors that are not to be known: hashes with a key, without which nobody can try what
they are of."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, Literal

from penstock.errors import ConfigError

SHORTEST_KEY_BYTES: Final = 16
_TENANT: Final = b"penstock tenant\0"
_TENSOR: Final = b"penstock tensor\0"


class Redaction:
    """Of all records of a writer."""

    def __init__(
        self,
        tenant_names: Literal["name", "hash", "none"] = "name",
        key: Callable[[], bytes] | None = None,
    ) -> None:
        """`key`: the key of hashes as it is now; None: nothing is hashed."""
        self._tenant_names = tenant_names
        self._key = key
        self._begun: dict[bytes, hmac.HMAC] = {}
        self._last = b""

    def refresh(self) -> None:
        """Look whether the key is another one. Raises ConfigError."""
        if self._key is None or (key := checked_key(self._key())) == self._last:
            return
        self._begun = {of: hmac.new(key, of, "sha256") for of in (_TENANT, _TENSOR)}
        self._last = key

    def tenant(self, name: str) -> str | None:
        """What is kept of a tenant; None: nothing. Raises ConfigError."""
        if self._tenant_names == "none":
            return None
        return name if self._tenant_names == "name" else self._hash(_TENANT, name.encode())

    def tensor(self, data: bytes | memoryview) -> str:
        """The hash of a tensor, or of one of its elements: the same wherever the same bytes are. Raises ConfigError."""
        return self._hash(_TENSOR, data)

    def _hash(self, of: bytes, data: bytes | memoryview) -> str:
        begun = self._begun.get(of)
        if begun is None:
            raise ConfigError("capture.hash_key: there is no key to hash with")
        digest = begun.copy()
        digest.update(data)
        return digest.hexdigest()


def checked_key(key: bytes) -> bytes:
    """The key itself. Raises ConfigError for one that could be guessed."""
    if len(key) < SHORTEST_KEY_BYTES:
        raise ConfigError(
            f"capture.hash_key: the key has {len(key)} bytes, expected {SHORTEST_KEY_BYTES} at least"
        )
    return key
