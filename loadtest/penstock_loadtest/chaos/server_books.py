"""The server's books, its counters, against the clients': every request that reached it must be accounted for."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from penstock_loadtest.chaos.books import Balance, Kind
from penstock_loadtest.chaos.models import Target

REASONS: Final = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
COUNTED_AS: Final = {
    Kind.OK: "SUCCESS",
    Kind.WRONG: "SUCCESS",
    Kind.QUEUE_FULL: "REJECTED",
    Kind.CRASHED: "BACKEND",
}
"""Where the server must have counted what a client was told."""
UNCERTAIN: Final = (
    *(Kind.CANCELLED, Kind.CUT, Kind.LATE, Kind.LINK_LOST),
    *(Kind.MISSING, Kind.UNEXPLAINED, Kind.STOPPED),
)
"""Ends after which a client can't know what the server made of its request, if it saw it at all."""
SAMPLE: Final = re.compile(r"^([a-z_]+)\{([^}]*)\} (\S+)$")
LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class ServerCount:
    """One model's counters and gauges, its versions added up."""

    success: int
    failures: Mapping[str, int]
    """By REASONS."""
    pending: int
    queued_bytes: int
    restarts: int

    @property
    def total(self) -> int:
        """All that the server says it was asked."""
        return self.success + sum(self.failures.values())


def read_counts(address: str) -> dict[str, ServerCount]:
    """The metrics page by model. Raises OSError where the server doesn't answer."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        return parse_counts(response.read().decode())


def parse_counts(page: str) -> dict[str, ServerCount]:
    """A page of Prometheus text."""
    found: dict[str, Counter[str]] = {}
    for line in page.splitlines():
        if (sample := SAMPLE.match(line)) is None:
            continue
        labels = dict(LABEL.findall(sample[2]))
        if "model" in labels:
            name = f"{sample[1]}/{labels['reason']}" if "reason" in labels else sample[1]
            found.setdefault(labels["model"], Counter())[name] += int(float(sample[3]))
    return {model: _count(samples) for model, samples in found.items()}


def compare(
    targets: Iterable[Target], clients: Balance, server: Mapping[str, ServerCount]
) -> list[str]:
    """Each line one way in which the two books do not agree. All requests must have ended."""
    lines = []
    for target in targets:
        count = server.get(target.name)
        if count is None:
            lines.append(f"{target.name}: the server's metrics do not know it")
            continue
        if count.pending or count.queued_bytes:
            lines.append(
                f"{target.name}: {count.pending} requests of {count.queued_bytes} bytes are still "
                "in its queue, though all clients are gone"
            )
        lines += _compare_model(target, clients.of_model(target.name), count)
    return lines


def _compare_model(target: Target, kinds: Counter[Kind], count: ServerCount) -> list[str]:
    uncertain = sum(kinds[kind] for kind in UNCERTAIN)
    told = Counter({name: 0 for name in ("SUCCESS", *REASONS)})
    for kind, name in COUNTED_AS.items():
        told[name] += kinds[kind]
    counted = {"SUCCESS": count.success, **count.failures}
    lines = []
    for name, least in told.items():
        # counters begin anew with each load: of a model that is reloaded only the upper bound holds
        low, high = 0 if target.reloaded else least, least + uncertain
        if not low <= counted.get(name, 0) <= high:
            lines.append(
                f"{target.name}: the server counted {counted.get(name, 0)} {name}, its clients "
                f"saw {least} (and {uncertain} whose end they can't know)"
            )
    least = sum(told.values())
    if not (0 if target.reloaded else least) <= count.total <= least + uncertain:
        lines.append(
            f"{target.name}: the server counted {count.total} requests, its clients sent {least} "
            f"and {uncertain} whose end they can't know"
        )
    return lines


def _count(samples: Counter[str]) -> ServerCount:
    return ServerCount(
        success=samples["nv_inference_request_success"],
        failures={r: samples[f"nv_inference_request_failure/{r}"] for r in REASONS},
        pending=samples["nv_inference_pending_request_count"],
        queued_bytes=samples["penstock_queued_bytes"],
        restarts=samples["penstock_worker_restarts_total"],
    )
