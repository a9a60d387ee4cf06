"""Traces as OpenTelemetry spans, sent to a collector. Needs the extra `otel`. Only the writer's thread is in here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock.telemetry.tracing.sampler import Sampler
from penstock.telemetry.tracing.trace import Trace
from penstock.trace_config import TraceConfig

ROOT: Final = "InferRequest"
COMPUTE: Final = "compute"
FLUSH_MS: Final = 3000
"""How long the last spans may take at the stop."""

Points = Sequence[tuple[str, int]]


class Spans:
    """A span for the call, under the client's own if it sent one, one for the model's request, one for its execution;
    their events are Triton's points."""

    problem = ""
    """The exporter logs its own."""

    def __init__(self, config: TraceConfig, exporter: SpanExporter | None = None) -> None:
        """`exporter`: for tests, in place of OTLP over HTTP."""
        attributes = {SERVICE_NAME: "penstock"} if not _named_by_environment() else {}
        resource = Resource.create({**attributes, **dict(config.resource)})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter or OTLPSpanExporter(endpoint=config.url or None),
                max_queue_size=config.bsp_max_queue_size,
                schedule_delay_millis=config.bsp_schedule_delay,
                max_export_batch_size=min(
                    config.bsp_max_export_batch_size, config.bsp_max_queue_size
                ),
            )
        )
        self._tracer = self._provider.get_tracer("penstock")
        self._propagator = TraceContextTextMapPropagator()

    def write(self, trace: Trace) -> None:
        """Make the spans of an ended trace."""
        parent = self._parent(trace)
        receives, sends = trace.receives, trace.sends
        if trace.call is None:
            self._write_request(trace, trace.offset_ns, parent)
            return
        complete = [point for point in trace.points if point[0] == "INFER_RESPONSE_COMPLETE"]
        points = [*receives, *complete, *sends]
        end_ns = max(points[-1][1], trace.points[-1][1])
        root = self._span(ROOT, points, trace.offset_ns, parent)
        if trace.error:
            root.set_status(Status(StatusCode.ERROR, trace.error))
        self._write_request(trace, trace.offset_ns, set_span_in_context(root))
        root.end(end_ns + trace.offset_ns)

    def retire(self, sampler: Sampler) -> None:
        """Spans are of no file."""

    def close(self) -> None:
        """Send what is left."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()

    def _parent(self, trace: Trace) -> Context | None:
        if trace.call is None or not trace.call.traceparent:
            return None
        carrier = {"traceparent": trace.call.traceparent, "tracestate": trace.call.tracestate}
        return self._propagator.extract(carrier)

    def _write_request(self, trace: Trace, offset_ns: int, parent: Context | None) -> None:
        computed = [point for point in trace.points if point[0].startswith("COMPUTE")]
        own = [
            point
            for point in trace.points
            if point not in computed and point[0] != "INFER_RESPONSE_COMPLETE"
        ]
        span = self._span(trace.model, own, offset_ns, parent)
        span.set_attribute("triton.model_name", trace.model)
        span.set_attribute("triton.model_version", trace.version)
        span.set_attribute("triton.trace_id", trace.id)
        span.set_attribute("triton.trace_parent_id", trace.parent_id)
        if trace.request_id:
            span.set_attribute("triton.request_id", trace.request_id)
        if trace.error:
            span.set_status(Status(StatusCode.ERROR, trace.error))
        within = set_span_in_context(span)
        if computed:
            compute = self._span(COMPUTE, computed, offset_ns, within)
            compute.end(computed[-1][1] + offset_ns)
        for child in trace.children:
            self._write_request(child, offset_ns, within)
        span.end(own[-1][1] + offset_ns)

    def _span(self, name: str, points: Points, offset_ns: int, parent: Context | None) -> Span:
        span = self._tracer.start_span(
            name, context=parent, kind=SpanKind.SERVER, start_time=points[0][1] + offset_ns
        )
        for event, ns in points:
            span.add_event(event, timestamp=ns + offset_ns)
        return span


def _named_by_environment() -> bool:
    return "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
