"""An explanation of a model's scheduling for a person: a heading and a table for each part there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.commands.explanation import (
    CurvePoint,
    Explanation,
    LevelPolicy,
    Policy,
    Queue,
    ResponseCache,
    Slo,
    StepState,
    Stock,
    UnderWay,
)

NOTHING = "-"


def as_report(explanation: Explanation) -> RenderableType:
    """All that the server has told, in the order: steps, policy, SLO, speed, queue, cache, instances, refusals."""
    title = Text(f"{explanation.model} {explanation.version}".rstrip(), "bold")
    parts: list[RenderableType] = [title]
    if explanation.problem:
        parts.append(Text(explanation.problem, "red"))
    if explanation.steps:
        parts.append(_steps(explanation.steps))
    if explanation.under_way is not None:
        parts.append(_under_way(explanation.under_way))
    if explanation.policy is not None:
        parts.append(_policy(explanation.policy))
        if explanation.policy.levels:
            parts.append(_level_policies(explanation.policy.levels))
    if explanation.slo is not None:
        parts += _slo(explanation.slo)
    if explanation.service_curve:
        parts.append(_service_curve(explanation.service_curve))
    if explanation.queue is not None:
        parts += _queue(explanation.queue)
    if explanation.response_cache is not None:
        parts.append(_response_cache(explanation.response_cache))
    if explanation.instances:
        parts.append(_instances(explanation))
    if explanation.rate_limiter is not None and explanation.rate_limiter.resources:
        parts.append(_resources(explanation.rate_limiter.resources))
    if explanation.refused:
        rows = [(reason.replace("_", " "), f"{n:,}") for reason, n in explanation.refused.items()]
        parts.append(_table("refused", ("reason", "requests"), rows))
    if explanation.quarantine:
        parts.append(_quarantine(explanation))
    return Group(*parts)


def _steps(steps: Sequence[StepState]) -> Table:
    rows = [
        (
            str(step.step),
            step.model,
            step.version or NOTHING,
            "ready" if step.ready else "not ready",
        )
        for step in steps
    ]
    return _table("steps", ("step", "model", "version", "state"), rows)


def _under_way(under_way: UnderWay) -> Table:
    return _facts(
        "under way",
        [
            ("requests", _of(_count(under_way.requests), _count(under_way.max_requests))),
            ("bytes", _of(_count(under_way.bytes), _count(under_way.max_bytes))),
        ],
    )


def _policy(policy: Policy) -> Table:
    preferred = ", ".join(map(str, policy.preferred_rows))
    return _facts(
        "policy",
        [
            ("rows of a batch", _of(_count(policy.rows_cap), _count(policy.max_rows))),
            ("preferred rows", preferred or NOTHING),
            ("waits for more", _of(_ms(policy.delay_us), _ms(policy.max_delay_us or None))),
            ("requests in the queue", _count(policy.max_queue_requests)),
            ("bytes in the queue", _count(policy.max_queue_bytes)),
            ("time in the queue", _ms(policy.max_queue_us or None)),
        ],
    )


def _level_policies(levels: Sequence[LevelPolicy]) -> Table:
    rows = [
        (
            each.level,
            _count(each.max_queue_requests or None),
            _ms(each.timeout_us or None),
            each.timeout_action,
            "yes" if each.allow_timeout_override else "no",
        )
        for each in levels
    ]
    heads = ("level", "requests", "time-out", "then", "clients may shorten it")
    return _table("queue policies", heads, rows)


def _slo(slo: Slo) -> Iterable[Table]:
    planned = NOTHING if slo.headroom is None else f"{slo.headroom:.0%} of it"
    yield _facts(
        "SLO",
        [
            ("p99", _of(_milliseconds(slo.measured_p99_ms), _milliseconds(slo.p99_ms))),
            ("plans with", planned),
            ("rows of a batch", _count(slo.rows_cap)),
            ("waits for more", _ms(slo.delay_us)),
            ("why", slo.reason or NOTHING),
        ],
    )
    if slo.history:
        rows = [
            (
                _seconds(decision.at_s_ago),
                _count(decision.rows_cap),
                _ms(decision.delay_us),
                _milliseconds(decision.measured_p99_ms),
                decision.reason,
            )
            for decision in slo.history
        ]
        yield _table("decisions", ("ago", "rows", "waits", "p99", "why"), rows)


def _service_curve(points: Sequence[CurvePoint]) -> Table:
    rows = [
        (
            str(point.rows),
            _ms(point.median_us),
            _ms(point.upper_us),
            _throughput(point),
            _count(point.samples),
        )
        for point in points
    ]
    return _table("speed", ("rows", "median", "upper", "rows/s", "samples"), rows)


def _throughput(point: CurvePoint) -> str:
    return _count(point.rows / point.median_us * 1e6) if point.median_us else NOTHING


def _queue(queue: Queue) -> Iterable[Table]:
    yield _facts(
        "queue",
        [
            ("requests", _count(queue.requests)),
            ("rows", _count(queue.rows)),
            ("bytes", _count(queue.bytes)),
            ("time to empty", _ms(queue.drain_us)),
        ],
    )
    rows = [
        (
            f"{level.level} late" if level.late else str(level.level),
            tenant.tenant,
            NOTHING if tenant.weight is None else f"{tenant.weight:g}",
            _count(tenant.requests),
            _count(tenant.rows),
            _ms(tenant.oldest_us),
        )
        for level in queue.levels
        for tenant in level.tenants
    ]
    if rows:
        heads = ("level", "tenant", "weight", "requests", "rows", "oldest waits")
        yield _table("waiting", heads, rows)


def _response_cache(cache: ResponseCache) -> Table:
    return _facts(
        "response cache",
        [
            ("answers", _count(cache.entries)),
            ("bytes", _count(cache.model_bytes)),
            ("bytes of all models", _of(_count(cache.used_bytes), _count(cache.budget_bytes))),
            ("hits", _count(cache.hits)),
            ("of these, waited for the same", _count(cache.coalesced)),
            ("misses", _count(cache.misses)),
            ("evicted", _count(cache.evictions)),
            ("too large", _count(cache.too_large)),
            ("under way", _count(cache.runs)),
            ("wait for these", _count(cache.waiting)),
        ],
    )


def _instances(explanation: Explanation) -> Table:
    rows = [
        (
            instance.name,
            instance.device or NOTHING,
            instance.state,
            " + ".join(map(str, instance.running_rows)) or NOTHING,
            _ms(instance.busy_us),
            _ms(instance.predicted_us),
        )
        for instance in explanation.instances
    ]
    return _table("instances", ("instance", "device", "state", "rows", "busy for", "done in"), rows)


def _resources(resources: Sequence[Stock]) -> Table:
    rows = [
        (
            each.name,
            "all" if each.device is None else str(each.device),
            _of(_count(each.held), _count(each.count)),
        )
        for each in resources
    ]
    return _table("resources", ("resource", "device", "held"), rows)


def _quarantine(explanation: Explanation) -> Table:
    rows = [(q.digest, q.reason, _seconds(q.seconds_left)) for q in explanation.quarantine]
    return _table("quarantined requests", ("digest", "reason", "left"), rows)


def _facts(title: str, facts: Sequence[tuple[str, str]]) -> Table:
    """A name and a value a line; what has no value is left out."""
    table = Table.grid(padding=(0, 2))
    table.title, table.title_justify = Text(f"\n{title}", "cyan"), "left"
    for name, value in facts:
        if value != NOTHING:
            table.add_row(Text(name), Text(value))
    return table


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(
        *heads, title=Text(f"\n{title}", "cyan"), title_justify="left", box=box.SIMPLE_HEAD
    )
    for row in rows:
        # as Text: names and reasons are others' words, and no markup
        table.add_row(*map(Text, row))
    return table


def _of(value: str, bound: str) -> str:
    if NOTHING in (value, bound):
        return value if bound == NOTHING else f"at most {bound}"
    return f"{value} of {bound}"


def _count(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}"


def _ms(number_us: float | None) -> str:
    return _milliseconds(None if number_us is None else number_us / 1e3)


def _milliseconds(number: float | None) -> str:
    """Three digits that count."""
    if number is None:
        return NOTHING
    return f"{number:,.0f} ms" if number >= 100 else f"{number:.3g} ms"


def _seconds(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.1f} s"
