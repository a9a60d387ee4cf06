"""How much a tenant may ask for: what `penstock tenants quota set` writes, and the quotas go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.errors import InvalidRequest

ALL_MODELS: Final = "*"
"""The pattern of a tenant's limits over all its models together."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a tenant, over all models that fit one pattern, together. None: unlimited."""

    requests_per_s: float | None = None
    """Requests a second, on average."""
    rows_per_s: float | None = None
    """Rows (a request without a batch dimension is one) a second, on average."""
    bytes_per_s: float | None = None
    """Bytes of inputs a second, on average."""
    burst_requests: float | None = None
    """Requests that may come at once after a rest; None: as many as a second allows, at least one."""
    burst_rows: float | None = None
    """Rows, likewise."""
    burst_bytes: float | None = None
    """Bytes, likewise."""
    in_flight: int | None = None
    """Requests that wait or run."""
    queued_bytes: int | None = None
    """Bytes of inputs of the requests that wait or run."""
    requests_per_day: int | None = None
    """Requests a day (UTC)."""
    rows_per_day: int | None = None
    """Rows a day (UTC)."""
    bytes_per_day: int | None = None
    """Bytes of inputs a day (UTC)."""

    def given(self) -> dict[str, float | int]:
        """Those that are set, by name, in the order above."""
        values = msgspec.structs.asdict(self)
        return {name: value for name, value in values.items() if value is not None}


NAMES: Final = tuple(Limits.__struct_fields__)
RATES: Final = {
    "burst_requests": "requests_per_s",
    "burst_rows": "rows_per_s",
    "burst_bytes": "bytes_per_s",
}
"""Burst → the rate that it belongs to."""
WHOLE: Final = frozenset(
    name for name in NAMES if not name.endswith("_per_s") and name not in RATES
)
"""Limits that are whole numbers."""
LARGEST: Final = 2**53
"""Up to here each whole number is a float of its own."""


def parse_limits(values: Mapping[str, object]) -> Limits:
    """The limits of these names. Raises InvalidRequest that names what is wrong, and what was expected."""
    given = {name: check_limit(name, value) for name, value in values.items() if value is not None}
    for burst, rate in RATES.items():
        if burst in given and rate not in given:
            raise InvalidRequest(f"{burst} has no effect without {rate}: set both")
    return Limits(**given)  # type: ignore[arg-type]


def check_limit(name: str, value: object) -> float | int:
    """One limit's value. Raises InvalidRequest."""
    if name not in NAMES:
        raise InvalidRequest(f"unknown limit '{name[:80]}', expected one of {', '.join(NAMES)}")
    whole = name in WHOLE
    least = 1 if whole or name in RATES else 0
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _wrong(name, value)
    # not a number is neither
    if value < least or not 0 < value <= LARGEST:
        raise _wrong(name, value)
    return value if whole else float(value)


def expected_of(name: str) -> str:
    """What a limit's value may be."""
    kind = "a whole number" if name in WHOLE else "a number"
    bound = "from 1 to 2^53" if name in WHOLE or name in RATES else "above 0, up to 2^53"
    return f"{kind} {bound}"


def _wrong(name: str, value: object) -> InvalidRequest:
    return InvalidRequest(f"{name}: expected {expected_of(name)}, got {str(value)[:80]!r}")
