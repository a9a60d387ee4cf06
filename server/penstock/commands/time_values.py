"""Durations and days as people write them: 30s, 15m, 24h, 30d; 2026-07-01."""

from __future__ import annotations

import math
import re
from typing import Final

from penstock.access.tenant_records import SECONDS_A_DAY, parse_day
from penstock.errors import InvalidRequest

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}

_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhdwy])")


def parse_duration(text: str) -> float:
    """Seconds. Raises InvalidRequest."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise InvalidRequest(
            f"{text[:80]!r} is no duration: expected a number and one of {', '.join(SECONDS)},"
            " such as 24h or 30d"
        )
    return float(found[1]) * SECONDS[found[2]]


def parse_since(text: str, now: float) -> int:
    """A day, or one so long ago, as days since 1970 (UTC). Raises InvalidRequest."""
    try:
        return parse_day(text.strip())
    except InvalidRequest:
        pass
    try:
        return math.floor((now - parse_duration(text)) / SECONDS_A_DAY)
    except InvalidRequest:
        raise InvalidRequest(
            f"{text[:80]!r} is neither a day, such as 2026-07-01, nor a duration, such as 30d"
        ) from None
