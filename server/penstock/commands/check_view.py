"""The report of `penstock check` for a terminal: a line a healthy model, what was found, and values on request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.text import Text

from penstock.commands.check_report import CheckReport, ModelLine
from penstock.repository.checks.findings import Finding
from penstock.repository.checks.provenance import ConfigValue
from penstock.repository.config_ensemble import PLATFORM

STYLES: Final = {"ok": "green", "warning": "yellow", "error": "red"}
LONGEST_VALUE: Final = 80
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that are instructions; but for line breaks and tabs."""

_GROUP_COUNT: Final = re.compile(r"instance_group\[\d+\]\.count")


def as_text(report: CheckReport, *, details: bool) -> Iterator[Text]:
    """Line by line. `details`: also each value of the configurations, and where it comes from."""
    for line in _lines(report, details=details):
        # names and values are whoever's made them: a terminal would obey what they say
        line.plain = _CONTROL.sub("�", line.plain)
        yield line


def _lines(report: CheckReport, *, details: bool) -> Iterator[Text]:
    width = max(len(model.name) for model in report.models)
    backends = max(len(model.backend) for model in report.models)
    for model in report.models:
        yield _headline(model, width, backends)
        for finding in model.findings:
            yield _finding(finding)
        if details:
            yield from _values(model.config)
    if details:
        yield Text("server", "bold")
        yield from _values(report.settings)
    yield _summary(report)


def _headline(model: ModelLine, width: int, backends: int) -> Text:
    status = (f"{model.status:<8}", STYLES[model.status])
    line = Text.assemble(
        (model.name.ljust(width), "bold"), "  ", status, model.backend.ljust(backends), "  "
    )
    line.append(_versions(model))
    described = "  ".join(part for part in (_batching(model), _instances(model)) if part)
    line.append(f"  {described}" if described else "", "dim")
    line.rstrip()
    return line


def _versions(model: ModelLine) -> str:
    served = [line.version for line in model.versions]
    if not served:
        return "no version"
    plural = "s" if len(served) > 1 else ""
    text = f"version{plural} {', '.join(map(str, served))}"
    return text if len(served) == len(model.present) else f"{text} of {len(model.present)}"


def _batching(model: ModelLine) -> str:
    size = next((v.value for v in model.config if v.key == "max_batch_size"), None)
    if size is None or size < 0:
        return ""
    return f"batches of {size}" if size else "no batches"


def _instances(model: ModelLine) -> str:
    groups = [value.value for value in model.config if _GROUP_COUNT.fullmatch(value.key)]
    count = sum(groups) or 1
    has_some = model.config and model.backend != PLATFORM
    return f"{count} instance{'s' if count > 1 else ''}" if has_some else ""


def _finding(finding: Finding) -> Text:
    line = Text("    ")
    line.append(f"{finding.severity}: ", STYLES[finding.severity])
    line.append(f"{finding.place}: " if finding.place else "", "dim")
    line.append(finding.text)
    return line


def _values(values: Sequence[ConfigValue]) -> Iterator[Text]:
    keys = max((len(value.key) for value in values), default=0)
    shown = [_shown(value.value) for value in values]
    width = min(max(map(len, shown), default=0), LONGEST_VALUE)
    for value, text in zip(values, shown, strict=True):
        yield Text.assemble(
            f"    {value.key:<{keys}}  {text:<{width}}  ", (f"from {value.source}", "dim")
        )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _summary(report: CheckReport) -> Text:
    good = sum(model.status != "error" for model in report.models)
    worst = "error" if report.errors else "warning" if report.warnings else "ok"
    counts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((report.errors, "error"), (report.warnings, "warning"))
        if count
    ]
    text = f"{good} of {len(report.models)} models can be served"
    return Text(", ".join([text, *counts]), STYLES[worst])
