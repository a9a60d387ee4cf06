"""Traces as OpenTelemetry spans."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from penstock.errors import ModelFailed
from penstock.telemetry.tracing.spans import Spans
from penstock.telemetry.tracing.trace import Trace
from penstock.trace_config import TraceConfig
from penstock.types import TracedCall

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMPUTE = ("COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END")


def trace(call: TracedCall | None) -> Trace:
    made = Trace(iter([7]), None, "m", 2, "r", call, lambda _: None, tensors=False)
    made.points += (("REQUEST_START", 30), ("QUEUE_START", 30))
    made.points += tuple(zip(COMPUTE, (40, 50, 60, 70), strict=True))
    made.points += (("INFER_RESPONSE_COMPLETE", 80), ("REQUEST_END", 80))
    if call is not None:
        made.sends += (("GRPC_SEND_START", 80), ("GRPC_SEND_END", 90))
    return made


def exported(made: Trace, config: TraceConfig | None = None) -> Sequence[ReadableSpan]:
    """All spans of a trace, by name."""
    exporter = InMemorySpanExporter()
    spans = Spans(config or TraceConfig(mode="opentelemetry"), exporter)
    spans.write(made)
    spans.close()
    return sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


def events(span: ReadableSpan, offset_ns: int) -> list[tuple[str, int]]:
    return [(event.name, event.timestamp - offset_ns) for event in span.events]


def test_three_spans_within_the_clients() -> None:
    made = trace(TracedCall("GRPC", 10, PARENT, received_ns=20))
    root, request, compute = exported(made)
    assert (root.name, request.name, compute.name) == ("InferRequest", "m", "compute")
    assert {span.kind for span in (root, request, compute)} == {SpanKind.SERVER}
    assert root.parent is not None and request.parent is not None and compute.parent is not None
    assert root.context is not None and request.context is not None and compute.context is not None
    assert f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert f"{compute.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent.span_id == root.context.span_id
    assert compute.parent.span_id == request.context.span_id
    assert events(root, made.offset_ns) == [
        ("GRPC_WAITREAD_START", 10),
        ("GRPC_WAITREAD_END", 20),
        ("INFER_RESPONSE_COMPLETE", 80),
        ("GRPC_SEND_START", 80),
        ("GRPC_SEND_END", 90),
    ]
    assert [name for name, _ in events(request, 0)] == [
        "REQUEST_START",
        "QUEUE_START",
        "REQUEST_END",
    ]
    assert events(compute, made.offset_ns) == list(zip(COMPUTE, (40, 50, 60, 70), strict=True))
    times = [(span.start_time, span.end_time) for span in (root, request, compute)]
    offset = made.offset_ns
    assert times == [
        (10 + offset, 90 + offset),
        (30 + offset, 80 + offset),
        (40 + offset, 70 + offset),
    ]


def test_what_the_request_was() -> None:
    _, request, _ = exported(trace(TracedCall("GRPC", 10, received_ns=20)))
    assert dict(request.attributes or {}) == {
        "triton.model_name": "m",
        "triton.model_version": 2,
        "triton.trace_id": 7,
        "triton.trace_parent_id": 0,
        "triton.request_id": "r",
    }


def test_without_a_client_s_trace_a_new_one_begins() -> None:
    root, *_ = exported(trace(TracedCall("GRPC", 10, "nonsense", received_ns=20)))
    assert root.parent is None


def test_an_error_is_one_in_the_spans_too() -> None:
    made = trace(TracedCall("GRPC", 10, received_ns=20))
    made.end(ModelFailed("no weights"))
    root, request, compute = exported(made)
    for span in (root, request):
        assert (span.status.status_code, span.status.description) == (
            StatusCode.ERROR,
            "no weights",
        )
    assert compute.status.status_code is StatusCode.UNSET


def test_a_request_that_was_never_executed() -> None:
    made = Trace(
        iter([7]),
        None,
        "m",
        2,
        "",
        TracedCall("HTTP", 10, received_ns=20),
        lambda _: None,
        tensors=False,
    )
    made.points += (("REQUEST_START", 30), ("QUEUE_START", 30))
    made.end(ModelFailed("queue full"))
    assert [span.name for span in exported(made)] == ["InferRequest", "m"]


def test_the_resource_is_ours_unless_it_is_named() -> None:
    (root, *_) = exported(trace(None))
    assert root.resource.attributes["service.name"] == "penstock"
    config = TraceConfig(resource=(("service.name", "shop"), ("team", "a")))
    (root, *_) = exported(trace(None), config)
    assert root.resource.attributes["service.name"] == "shop"
    assert root.resource.attributes["team"] == "a"
