"""`--rate-limit-resource`: how much there is of what instances need while they run, in Triton's spelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

EVERY_DEVICE: Final = -2
"""The device of a count that holds for each device by itself."""

MAX_COUNT: Final = 2**32 - 1


class Resource(NamedTuple):
    """What instances need to run. It is only a name: nobody looks what it stands for."""

    name: str
    device: int


def parse_rate_limit_resources(texts: Iterable[str]) -> Mapping[Resource, int]:
    """All of the flag's values together. Raises ValueError that names what is wrong."""
    counts: dict[Resource, int] = {}
    for text in texts:
        name, *numbers = text.split(":")
        if not name or not 1 <= len(numbers) <= 2 or not all(n.isdecimal() for n in numbers):
            raise ValueError(
                f"expected NAME:COUNT or NAME:COUNT:DEVICE, such as R1:4, and not {text!r}"
            )
        count, device = int(numbers[0]), EVERY_DEVICE if len(numbers) < 2 else int(numbers[1])
        if count > MAX_COUNT:
            raise ValueError(f"expected a count of at most {MAX_COUNT}, and not {text!r}")
        if Resource(name, device) in counts:
            raise ValueError(f"the count of {name!r} is given twice for the same device")
        counts[Resource(name, device)] = count
    return counts
