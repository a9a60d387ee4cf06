"""Requests that models send to others are part of their caller's trace."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fake_workers import settle
from nested_bench import NestedBench
from pending import pending
from penstock.errors import InvalidRequest
from penstock.repository.nested_call import terms_of
from penstock.telemetry.tracing.records import trace_json
from penstock.telemetry.tracing.spans import Spans
from penstock.telemetry.tracing.trace import Trace
from penstock.trace_config import TraceConfig
from pool_bench import Make


async def traced(make_pool: Make) -> Trace:
    """A request of `outer` that was answered with the help of `m`, which was asked twice."""
    bench = NestedBench(await make_pool().with_workers(1))
    ended: list[Trace] = []
    trace = Trace(count(1), None, "outer", 3, "client", None, ended.append, tensors=False)
    parent = pending({"X": np.ones((1, 1), np.float32)})
    trace.follow(parent)
    for value in (1, 2):
        bench.submit(np.full((1, 1), value, np.float32), terms_of(parent))
        await settle()
        await bench.bench.workers[0].answer()
    parent.finish(InvalidRequest("no"))
    assert ended == [trace]
    return trace


async def test_children_are_whole_traces_that_name_their_parent(make_pool: Make) -> None:
    records = json.loads(b"[" + trace_json(await traced(make_pool), timestamps=True) + b"]")
    about = [record for record in records if "model_name" in record]
    assert [(each["id"], each["model_name"], each.get("parent_id")) for each in about] == [
        (1, "outer", None),
        (2, "m", 1),
        (3, "m", 1),
    ]
    for child in (2, 3):
        names = [
            record["timestamps"][0]["name"]
            for record in records
            if record["id"] == child and "timestamps" in record
        ]
        assert names == [
            *("REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END"),
            *("COMPUTE_OUTPUT_START", "COMPUTE_END", "INFER_RESPONSE_COMPLETE", "REQUEST_END"),
        ]


async def test_children_are_spans_within_their_parents(make_pool: Make) -> None:
    exporter = InMemorySpanExporter()
    spans = Spans(TraceConfig(mode="opentelemetry"), exporter)
    spans.write(await traced(make_pool))
    spans.close()
    finished = exporter.get_finished_spans()
    (outer,) = [span for span in finished if span.name == "outer"]
    inner = [span for span in finished if span.name == "m"]
    assert len(inner) == 2
    for span in inner:
        assert span.parent is not None and outer.context is not None
        assert span.parent.span_id == outer.context.span_id
        assert (span.attributes or {})["triton.trace_parent_id"] == 1
    assert len([span for span in finished if span.name == "compute"]) == 2


async def test_nothing_is_traced_where_the_caller_is_not(make_pool: Make) -> None:
    bench = NestedBench(await make_pool().with_workers(1))
    call = bench.submit(
        np.ones((1, 1), np.float32), terms_of(pending({"X": np.ones((1, 1), np.float32)}))
    )
    assert call.request.trace is None
    await settle()
    await bench.bench.workers[0].answer()
