"""What tenants have used, by model: counted in memory, and handed on in groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from penstock.access.limits import ALL_MODELS
from penstock.access_config import matches

SECONDS_PER_DAY: Final = 86_400


class UsageRow(msgspec.Struct, frozen=True):
    """What a tenant has used of a model on one day, or since it was told last."""

    tenant: str
    model: str
    day: int
    """Days since 1970-01-01 (UTC)."""
    requests: int
    rows: int
    nbytes: int


class Usage:
    """Of one tenant and one model, since the server's start."""

    __slots__ = ("earlier", "model", "nbytes", "refused", "requests", "rows", "tenant", "told")

    def __init__(self, tenant: str, model: str) -> None:
        self.tenant: Final = tenant
        self.model: Final = model
        self.requests = 0
        self.rows = 0
        self.nbytes = 0
        self.refused = 0
        """Requests that were over a quota."""
        self.told: tuple[int, int, int] = (0, 0, 0)
        """What of it was handed on."""
        self.earlier: tuple[int, int, int] = (0, 0, 0)
        """What is to be subtracted for today's part of it: negative, where some of today was before the start."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Requests, rows and bytes."""
        return self.requests, self.rows, self.nbytes

    @property
    def today(self) -> tuple[int, int, int]:
        """Requests, rows and bytes of today."""
        requests, rows, nbytes = self.earlier
        return self.requests - requests, self.rows - rows, self.nbytes - nbytes


class UsageBook:
    """Of all tenants."""

    def __init__(self, day: int) -> None:
        self.day = day
        """Days since 1970-01-01 (UTC): what is counted now belongs to it."""
        self._of: dict[str, dict[str, Usage]] = {}
        self._due: list[UsageRow] = []

    def of(self, tenant: str, model: str) -> Usage:
        """The tenant's use of the model."""
        models = self._of.setdefault(tenant, {})
        usage = models.get(model)
        if usage is None:
            usage = models[model] = Usage(tenant, model)
        return usage

    def __iter__(self) -> Iterator[Usage]:
        for models in self._of.values():
            yield from models.values()

    def restore(self, rows: list[UsageRow]) -> None:
        """What was used today before this server started, as it is kept elsewhere."""
        for row in rows:
            if row.day == self.day:
                usage = self.of(row.tenant, row.model)
                requests, count, nbytes = usage.earlier
                usage.earlier = requests - row.requests, count - row.rows, nbytes - row.nbytes

    def turn(self, day: int) -> None:
        """Another day begins."""
        self._collect()
        self.day = day
        for usage in self:
            usage.earlier = usage.requests, usage.rows, usage.nbytes

    def today(self, tenant: str, pattern: str) -> list[int]:
        """Requests, rows and bytes of today, of all models that fit the pattern."""
        sums = [0, 0, 0]
        for usage in self._of.get(tenant, {}).values():
            if fits(usage.model, pattern):
                sums = [a + b for a, b in zip(sums, usage.today, strict=True)]
        return sums

    def take(self) -> list[UsageRow]:
        """What was not taken yet, one row a tenant, model and day. Who can't keep it puts it back."""
        self._collect()
        merged: dict[tuple[str, str, int], UsageRow] = {}
        for row in self._due:
            key = row.tenant, row.model, row.day
            merged[key] = _sum(merged[key], row) if key in merged else row
        self._due = []
        return list(merged.values())

    def put_back(self, rows: list[UsageRow]) -> None:
        """It could not be kept: it comes again with the next ones."""
        self._due += rows

    def _collect(self) -> None:
        for usage in self:
            counts = usage.counts
            if counts != usage.told:
                new = (now - told for now, told in zip(counts, usage.told, strict=True))
                usage.told = counts
                self._due.append(UsageRow(usage.tenant, usage.model, self.day, *new))


def fits(model: str, pattern: str) -> bool:
    """Whether a pattern of limits is about the model."""
    return pattern == ALL_MODELS or matches(model, (pattern,))


def _sum(a: UsageRow, b: UsageRow) -> UsageRow:
    counts = a.requests + b.requests, a.rows + b.rows, a.nbytes + b.nbytes
    return UsageRow(a.tenant, a.model, a.day, *counts)
