"""Tracing as a whole: settings, samplers, and the way of traces to where they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Final

from penstock.telemetry.tracing.files import TraceFiles
from penstock.telemetry.tracing.sampler import Sampler
from penstock.telemetry.tracing.settings import Changes, TraceSettings
from penstock.telemetry.tracing.trace import Trace
from penstock.telemetry.tracing.writer import Destination, TraceWriter
from penstock.trace_config import DEFAULT_URL, TraceConfig
from penstock.types import TracedCall, TraceSwitch

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
"""https://www.w3.org/TR/trace-context/"""


class Tracing:
    """One a gateway. While `switch` is off, it costs nothing but a look at it."""

    def __init__(self, config: TraceConfig) -> None:
        self.config = config
        self.switch = TraceSwitch()
        self._settings = TraceSettings(config)
        self._samplers: dict[str, Sampler] = {"": Sampler(self._settings.of(""))}
        self._ids = count(1)
        self._writer = TraceWriter(_destination(config))
        self._switch()

    def sample(
        self, model: str, version: int, request_id: str, call: TracedCall | None
    ) -> Trace | None:
        """The trace of a request that is to have one."""
        sampler = self._samplers.get(model) or self._samplers[""]
        forced = False
        if call is not None and call.traceparent and self.config.mode == "opentelemetry":
            asked = _client_traces(call.traceparent)
            if asked is False:
                return None
            forced = asked is True
        if not sampler.take(forced=forced):
            return None
        if sampler.left == 0:
            self._switch()
        tensors = "TENSORS" in sampler.setting.level and self.config.mode == "triton"
        return Trace(
            self._ids,
            sampler,
            model,
            version,
            request_id,
            call,
            self._writer.put,
            tensors=tensors,
        )

    def update(self, model: str, changes: Changes) -> None:
        """Change the model's setting, or the server's (""). Raises InvalidRequest, Unsupported."""
        self._settings.update(model, changes)
        wanted = {name: self._settings.of(name) for name in ("", *self._settings.models)}
        for name, sampler in list(self._samplers.items()):
            # also one whose count is set again
            if name == model or wanted.get(name) != sampler.setting:
                self._writer.retire(self._samplers.pop(name))
        for name, setting in wanted.items():
            if name not in self._samplers:
                self._samplers[name] = Sampler(setting)
        self._switch()

    def to_texts(self, model: str) -> Mapping[str, list[str]]:
        """What holds for the model, or the server (""), by the extension's names."""
        sampler = self._samplers.get(model) or self._samplers[""]
        texts = sampler.setting.to_texts()
        texts["trace_count"] = [str(sampler.left)]
        if self.config.mode == "triton":
            texts["trace_file"] = [self.config.file]
        else:
            del texts["log_frequency"]
        texts["trace_mode"] = [self.config.mode]
        if self.config.mode == "opentelemetry":
            texts |= _otel_texts(self.config)
        if self._writer.problem:
            texts["trace_error"] = [self._writer.problem]
        return texts

    def close(self) -> None:
        """Write what is left. Blocks, for a few seconds at most."""
        self.switch.on = False
        self._writer.close()

    def _switch(self) -> None:
        self.switch.on = any(sampler.on for sampler in self._samplers.values())


def _client_traces(traceparent: str) -> bool | None:
    """Whether the client records its trace; None for what is no traceparent."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return None if match is None else bool(int(match[1], 16) & 1)


def _otel_texts(config: TraceConfig) -> dict[str, list[str]]:
    return {
        "url": [config.url or DEFAULT_URL],
        "resource": [f"{name}={value}" for name, value in config.resource],
        "bsp_schedule_delay": [str(config.bsp_schedule_delay)],
        "bsp_max_queue_size": [str(config.bsp_max_queue_size)],
        "bsp_max_export_batch_size": [str(config.bsp_max_export_batch_size)],
    }


def _destination(config: TraceConfig) -> Callable[[], Destination]:
    if config.mode == "triton":
        return lambda: TraceFiles(Path(config.file))

    def spans() -> Destination:
        # its packages are an extra
        from penstock.telemetry.tracing.spans import Spans

        return Spans(config)

    return spans
