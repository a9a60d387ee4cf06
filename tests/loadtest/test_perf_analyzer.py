"""perf_analyzer: its CSV, its printed count, and the texts it is given."""

from __future__ import annotations

import pytest

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.perf_analyzer import TEXTS, parse_count, parse_csv, text_steps

HEADER = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
    "p50 latency,p90 latency,p95 latency,p99 latency\n"
)
LINE = "64,11458.6,3,1364,1513,346,888,1459,1,5326,7791,8824,11469\n"
OUTPUT = """
Request concurrency: 64
  Client:
    Request count: 91898
    Throughput: 11458.6 infer/sec
  Server:
    Inference count: 91901
    Successful request count: 91901
"""


def test_the_csv_is_read() -> None:
    row = parse_csv(HEADER + LINE)
    assert (row["Inferences/Second"], row["p50 latency"], row["p99 latency"]) == (
        11458.6,
        5326,
        11469,
    )


@pytest.mark.parametrize("text", ["", HEADER, HEADER + LINE + LINE, "a,b\n1,2\n"])
def test_a_csv_without_one_result_is_an_error(text: str) -> None:
    with pytest.raises(BenchmarkError, match="perf_analyzer wrote no result"):
        parse_csv(text)


def test_the_clients_count_is_read_not_the_servers() -> None:
    assert parse_count(OUTPUT) == 91898


def test_output_without_a_count_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="printed no request count"):
        parse_count("error: failed to get model metadata")


def test_texts_differ_and_are_the_same_each_time() -> None:
    steps = text_steps()
    assert steps == text_steps()
    assert len(steps["data"]) == TEXTS
    assert len({step["TEXT"][0] for step in steps["data"]}) == TEXTS
