"""Requests that have killed workers, remembered by digest for a while: their likes are refused before they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

MAX_REMEMBERED: Final = 1024


class Digestible(Protocol):
    """A request that can be recognised."""

    @property
    def input_bytes(self) -> int:
        """How long its inputs are together."""
        ...

    def digest(self) -> bytes:
        """Equal for requests that a model can't tell from each other."""
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """One of them."""

    reason: str
    until_us: float
    input_bytes: int


class Quarantine:
    """Costs nothing while it is empty, and a digest only for requests as long as one that is in it."""

    def __init__(self, lasts_us: float) -> None:
        self._lasts_us = lasts_us
        self._remembered: dict[bytes, Remembered] = {}

    def __bool__(self) -> bool:
        return bool(self._remembered)

    def add(self, request: Digestible, reason: str, now_us: float) -> None:
        """Remember a request."""
        if len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        until_us = now_us + self._lasts_us
        self._remembered[request.digest()] = Remembered(reason, until_us, request.input_bytes)

    def reason(self, request: Digestible, now_us: float) -> str:
        """Why the request must not run; empty when it may."""
        self._forget(now_us)
        input_bytes = request.input_bytes
        if all(found.input_bytes != input_bytes for found in self._remembered.values()):
            return ""
        found = self._remembered.get(request.digest())
        return found.reason if found is not None else ""

    def listing(self, now_us: float) -> list[tuple[str, str, float]]:
        """Digest, reason, and seconds left of each."""
        self._forget(now_us)
        return [
            (digest.hex(), found.reason, (found.until_us - now_us) / 1e6)
            for digest, found in self._remembered.items()
        ]

    def _forget(self, now_us: float) -> None:
        over = [digest for digest, found in self._remembered.items() if found.until_us <= now_us]
        for digest in over:
            del self._remembered[digest]
