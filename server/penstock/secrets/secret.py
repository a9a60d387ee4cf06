"""A secret's value, which shows itself nowhere: not in logs, tracebacks, pickles, or JSON."""

from __future__ import annotations

import hmac
from typing import Any, Final, NoReturn

from penstock.errors import ConfigError

HIDDEN: Final = "Secret(hidden)"


class Secret:
    """Bytes that only `reveal` and `text` give away. Two are compared in constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value: Final = bytes(value)

    def reveal(self) -> bytes:
        """The secret itself. Keep it in no attribute, and put it into no message."""
        return self._value

    def text(self) -> str:
        """The same as text. Raises ConfigError, without the value, where it is none."""
        try:
            return self._value.decode()
        except UnicodeDecodeError:
            # `from None`: the error holds the bytes
            raise ConfigError("a secret is not UTF-8 text") from None

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    # equal ones have to have one hash, and a hash tells of the value
    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret can't be pickled")
