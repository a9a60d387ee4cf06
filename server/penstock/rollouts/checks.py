"""Fields of a plan are what they should be, or its maker is told."""

from __future__ import annotations

from penstock.errors import InvalidRequest


def expect(right: bool, name: str, value: object, expected: str) -> None:
    """Raises InvalidRequest that names the field unless it is right."""
    if not right:
        raise InvalidRequest(f"{name}: expected {expected}, got {value!r}")


def expect_share(name: str, value: float | None, low: float, high: float) -> None:
    """None turns off what it is for."""
    expect(
        value is None or low <= value <= high,
        name,
        value,
        f"a share from {low:g} to {high:g}, or null",
    )
