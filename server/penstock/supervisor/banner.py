"""What a person sees: the banner when start-up is over, and a log line for each change after it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from penstock.config import Settings
from penstock.supervisor.exposure import LOOPBACK, exposures
from penstock.supervisor.protection import HINT, nobody_has_a_key, protections
from penstock.tls_config import TlsSettings
from penstock.workers.supervisor_messages import UNLOADED, ModelReport, Report

STATE_STYLES: Final = {"READY": "green", "UNAVAILABLE": "red"}
_PLAIN_WIDTH: Final = 200

_log = logging.getLogger(__name__)


class Announcer:
    """Shows the first report as a banner, and what changes after it as log lines."""

    def __init__(self, settings: Settings, front: str, version: str, out: TextIO) -> None:
        self._settings = settings
        self._front = front
        self._version = version
        self._out = out
        self._known: dict[tuple[str, str], ModelReport] | None = None

    @property
    def shown(self) -> bool:
        """Whether there was a report."""
        return self._known is not None

    def show(self, report: Report) -> None:
        """Call for each report, in order."""
        models = {(model.name, model.version): model for model in report.models}
        if self._known is None:
            for line in exposures(self._settings):
                _log.warning("%s", line)
        if self._known is not None:
            _log_changes(self._known, models)
        elif self._settings.log_format == "json":
            told = {**self._settings.ports(), **protections(self._settings)}
            _log.info("serving", extra={"front": self._front, **told})
            _log_changes({}, models)
        else:
            self._show_banner(report.models)
        self._known = models

    def _show_banner(self, models: Sequence[ModelReport]) -> None:
        console = Console(file=self._out, highlight=False)
        if not console.is_terminal:
            # a log file has no width: nothing is wrapped
            console.width = _PLAIN_WIDTH
        title = Text.assemble((f"Penstock {self._version}", "bold"), f"  front: {self._front}")
        lines = [title, *self._addresses(), Text(), *_model_table(models), _summary(models)]
        lines += _expected(self._settings.model_repository) if not models else []
        for line in lines:
            console.print(line, soft_wrap=True)
        self._out.flush()

    def _addresses(self) -> list[Text]:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        http, grpc = ("https://", "grpcs://") if settings.tls.enabled else ("http://", "")
        rows = [
            (settings.allow_http, "HTTP", f"{http}{host}:{settings.http_port}"),
            (settings.allow_grpc, "gRPC", f"{grpc}{host}:{settings.grpc_port}"),
            (settings.allow_metrics, "metrics", f"{http}{host}:{settings.metrics_port}/metrics"),
            (settings.allow_sagemaker, "SageMaker", f"{http}{host}:{settings.sagemaker_port}"),
            (settings.allow_vertex_ai, "Vertex AI", f"{http}{host}:{settings.vertex_ai_port}"),
        ]
        width = max([9, *(len(label) + 2 for allowed, label, _ in rows if allowed)])
        lines = [Text(f"  {label:<{width}}{url}") for allowed, label, url in rows if allowed]
        lines += [
            Text(f"  {label:<{width}}{text}") for label, text in protections(settings).items()
        ]
        if nobody_has_a_key(settings):
            lines.append(Text(f"  {HINT}", "dim"))
        if settings.tls.client_auth != "none":
            lines.append(Text(f"  {_asked_of_clients(settings.tls)}", "dim"))
        if settings.host.startswith(LOOPBACK):
            reach = "Only this machine can connect: --host 0.0.0.0 opens the ports to the network."
            lines.append(Text(f"  {reach}", "dim"))
        return lines


def _asked_of_clients(tls: TlsSettings) -> str:
    """Which certificates clients have to show."""
    if tls.client_auth == "require":
        return f"Clients must show a certificate of a CA in {tls.client_ca_file}."
    return f"Clients may show a certificate of a CA in {tls.client_ca_file}."


def _model_table(models: Sequence[ModelReport]) -> list[Text]:
    header = ("MODEL", "VERSION", "STATE", "BACKEND", "INSTANCES")
    rows = [(m.name, m.version, m.state, m.backend, str(m.instances)) for m in models]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [_table_line(header, widths, "dim")] if models else []
    for model, row in zip(models, rows, strict=True):
        lines.append(_table_line(row, widths, STATE_STYLES.get(model.state, "yellow")))
        if model.reason:
            lines.append(Text(f"    {' '.join(model.reason.split())}", "dim"))
    return lines


def _table_line(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    """One row; `style` is the state's."""
    line = Text("  ")
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        line.append(cell.ljust(width) + "  ", style if column == 2 or style == "dim" else "")
    line.rstrip()
    return line


def _summary(models: Sequence[ModelReport]) -> Text:
    ready = sum(model.state == "READY" for model in models)
    style = "green" if ready == len(models) else "yellow"
    return Text.assemble((f"  {ready} of {len(models)} models ready", style), ". Ctrl-C stops.")


def _expected(repositories: Sequence[Path]) -> list[Text]:
    """What a repository looks like that has a model; none was found."""
    hint = "expected NAME/config.pbtxt and NAME/1/model.onnx, or files of another backend"
    return [Text(f"  {folder}: {hint}", "dim") for folder in repositories]


def _log_changes(
    before: dict[tuple[str, str], ModelReport], after: dict[tuple[str, str], ModelReport]
) -> None:
    for key, model in after.items():
        old = before.get(key)
        if old is None or (old.state, old.reason) != (model.state, model.reason):
            # one that was unloaded is as somebody has asked for it to be
            is_bad = model.state == "UNAVAILABLE" and model.reason != UNLOADED
            level = logging.WARNING if is_bad else logging.INFO
            reason = f": {model.reason}" if model.reason else ""
            _log.log(level, "model %s/%s is %s%s", *key, model.state, reason)
    for key in before.keys() - after.keys():
        _log.info("model %s/%s is gone", *key)
