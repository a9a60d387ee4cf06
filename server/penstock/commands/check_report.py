"""The report of `penstock check`, as `-o json` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.config import Settings
from penstock.model_config import ConfigDict
from penstock.repository.checks.findings import Finding
from penstock.repository.checks.model_check import CheckedModel
from penstock.repository.checks.provenance import DEFAULT, ConfigValue, provenance

RELEVANT: Final = (
    "default_threads",
    "execution_timeout_secs",
    "max_batch_bytes",
    "max_queue_bytes",
    "max_queue_requests",
    "max_queue_secs",
    "model_load_timeout_secs",
    "quarantine_secs",
    "tenant_weights",
)
"""The server's settings that decide how models are served."""


class VersionLine(msgspec.Struct, frozen=True):
    """A version that would be served."""

    version: int
    state: str
    """loaded, failed, or not tried."""


class ModelLine(msgspec.Struct, frozen=True):
    """One model."""

    name: str
    status: str
    """ok, warning or error."""
    backend: str
    folder: str
    present: Sequence[int]
    """Versions in the folder."""
    versions: Sequence[VersionLine]
    """Those that would be served."""
    findings: Sequence[Finding]
    config: Sequence[ConfigValue]
    """Of the highest version that could be loaded, else as far as it is known."""


class CheckReport(msgspec.Struct, frozen=True):
    """All of it."""

    repository: str
    errors: int
    warnings: int
    models: Sequence[ModelLine]
    settings: Sequence[ConfigValue]

    @classmethod
    def of(
        cls,
        repository: str,
        models: Sequence[ModelLine],
        settings: Settings,
        sources: Mapping[str, str],
    ) -> CheckReport:
        """The report of these models, with these settings."""
        findings = [finding for model in models for finding in model.findings]
        errors = sum(finding.severity == "error" for finding in findings)
        dumped = settings.model_dump(mode="json")
        values = [ConfigValue(name, dumped[name], sources.get(name, DEFAULT)) for name in RELEVANT]
        return cls(repository, errors, len(findings) - errors, models, values)


def model_line(
    model: CheckedModel,
    findings: Sequence[Finding],
    versions: Sequence[VersionLine],
    complete: ConfigDict | None,
    *,
    tried: bool,
) -> ModelLine:
    """What there is to say of a model. `complete`: its configuration once it was loaded; `tried`: that was tried."""
    severities = {finding.severity for finding in findings}
    status = "error" if "error" in severities else "warning" if severities else "ok"
    values: list[ConfigValue] = []
    if model.config is not None and (complete is not None or not tried or status == "error"):
        known: dict[str, Any] = complete or {**model.config, "backend": model.backend}
        values = provenance(model.config, known, model.located)
    return ModelLine(
        model.name,
        status,
        model.backend,
        str(model.folder),
        model.present,
        versions,
        findings,
        values,
    )
