"""The gateway's part: which requests are kept, of which model and tenant, and where their records go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from penstock.capture.columns import Table, table_of
from penstock.capture.counts import CaptureCounts, Lost, Skipped
from penstock.capture.messages import Record
from penstock.capture.sampler import Sampler
from penstock.capture_config import CaptureRule, CaptureSettings
from penstock.errors import Unavailable
from penstock.model_config import ModelConfig

log = logging.getLogger(__name__)

MAX_TENANTS: Final = 1024
"""Of one model, whose plans are remembered: a header may name any."""

MayKeep = Callable[[str, str], bool]
"""Whether a tenant allows that its requests to a model are kept."""
OnTable = Callable[[Table, CaptureRule], None]
"""Is told before the first request of a model is kept. Raises Unavailable where none may be then."""


class Line(Protocol):
    """Where records go."""

    def add(self, table: Table) -> None:
        """Records of this table may come."""
        ...

    def put(self, record: Record) -> None:
        """Have it written, if there is room."""
        ...


class Plan:
    """What is kept of some tenants' requests to one version of a model."""

    __slots__ = ("inputs", "outputs", "rule", "sampler", "table")

    def __init__(self, table: Table, rule: CaptureRule) -> None:
        self.table: Final = table
        self.rule: Final = rule
        self.sampler: Final = Sampler(rule.sample)
        self.inputs: Final = {column.tensor: at for at, column in enumerate(table.inputs)}
        """Input → its place in a record."""
        self.outputs: Final = {column.tensor: at for at, column in enumerate(table.outputs)}


class ModelCapture:
    """Of one version of a model."""

    def __init__(self, capture: Capture, version: int, config: ModelConfig) -> None:
        self._capture = capture
        self._version = version
        self._config = config
        self._by_tenant: dict[str, Plan | None] = {}
        self._by_rule: dict[int, Plan] = {}

    def plan(self, tenant: str) -> Plan | None:
        """The one of a tenant's requests; None: they are not kept."""
        try:
            return self._by_tenant[tenant]
        except KeyError:
            if len(self._by_tenant) >= MAX_TENANTS:
                self._by_tenant.clear()
            plan = self._by_tenant[tenant] = self._make(tenant)
            return plan

    def _make(self, tenant: str) -> Plan | None:
        rule = self._capture.settings.rule_for(self._config.name, tenant)
        if rule is None:
            return None
        known = self._by_rule.get(id(rule))
        if known is None:
            table = self._capture.table(self._version, self._config, rule)
            known = self._by_rule[id(rule)] = Plan(table, rule)
        return known


class Capture:
    """One a gateway that keeps records."""

    def __init__(
        self,
        settings: CaptureSettings,
        line: Line,
        counts: CaptureCounts,
        may_keep: MayKeep | None = None,
        on_table: OnTable = lambda table, rule: None,
    ) -> None:
        """`may_keep`: None: access is not controlled, and the settings alone say."""
        self.settings: Final = settings
        self.counts: Final = counts
        self.max_record_bytes: Final = int(settings.max_record_bytes)
        self._line = line
        self._may_keep = may_keep
        self._on_table = on_table
        self._tables: dict[Table, Table] = {}
        """Each by itself, but for its number."""
        self._begun: set[int] = set()

    def of(self, version: int, config: ModelConfig) -> ModelCapture:
        """Of a version that was loaded."""
        return ModelCapture(self, version, config)

    def takes(self, plan: Plan, tenant: str, wanted: object) -> bool:
        """Whether a request is kept whose turn it is. `wanted`: what its client says of it; None: nothing."""
        counts = self.counts
        counts.sampled += 1
        if wanted is not None and wanted is not True:
            # also who says "false", or 0, does not want it
            return self._skip(Skipped.OPTED_OUT)
        if self._may_keep is not None and not self._may_keep(tenant, plan.table.model):
            return self._skip(Skipped.NOT_ALLOWED)
        return self.begins(plan)

    def begins(self, plan: Plan) -> bool:
        """Whether a record may come, of which it is told before the first one."""
        if plan.table.number not in self._begun:
            try:
                self._on_table(plan.table, plan.rule)
            except Unavailable:
                return self._skip(Skipped.NOT_RECORDED)
            self._begun.add(plan.table.number)
        return True

    def put(self, record: Record) -> None:
        """Have it written."""
        self._line.put(record)

    def too_large(self) -> None:
        """A request is not kept, for its tensors are too large."""
        self.counts.skipped[Skipped.TOO_LARGE] += 1

    def failed(self) -> None:
        """Count a bug. Requests go on."""
        self.counts.lost[Lost.ERROR] += 1
        log.exception("a request could not be captured")

    def table(self, version: int, config: ModelConfig, rule: CaptureRule) -> Table:
        """The same one for the same columns, however often the model is loaded."""
        found = table_of(0, version, config, rule)
        known = self._tables.get(found)
        if known is None:
            known = table_of(len(self._tables) + 1, version, config, rule)
            self._tables[found] = known
            self._line.add(known)
        return known

    def _skip(self, why: Skipped) -> bool:
        self.counts.skipped[why] += 1
        return False
