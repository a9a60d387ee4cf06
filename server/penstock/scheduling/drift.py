"""Notices that batches of every size have begun to take longer than they did, or less."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

RECENT: Final = 15
"""Batches that are looked at: most of them must have changed, which outliers never are."""

CHANGED: Final = 1.4
"""Times as long, or as short, as what batches of the size took before."""


@dataclass(frozen=True, slots=True)
class Change:
    """All that was seen before `since_us` would take `factor` times as long now."""

    factor: float
    since_us: float


class Drift:
    """What the last batches took, of any size, as a share of what was expected of them."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def observe(self, now_us: float, ratio: float) -> None:
        """A batch ended that took `ratio` times what those of its size usually do."""
        self._recent.append((now_us, ratio))

    def change(self) -> Change | None:
        """What has changed, once."""
        recent = self._recent
        slower = [entry for entry in recent if entry[1] > CHANGED]
        quicker = [entry for entry in recent if entry[1] < 1 / CHANGED]
        for changed in (slower, quicker):
            if 2 * len(changed) > RECENT:
                recent.clear()
                return Change(median(ratio for _, ratio in changed), changed[0][0])
        return None
