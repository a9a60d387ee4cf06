"""h2load: its printed summary, and the rate from its log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock_loadtest.cases import Case
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.h2load import Summary, checked, command, parse_summary, steady_rate
from penstock_loadtest.servers import Ports, RunningServer

OUTPUT = """
Application protocol: h2c

finished in 1.73s, 23089.57 req/s, 3.06MB/s
requests: 40000 total, 40000 started, 39997 done, 39990 succeeded, 4 failed, 2 errored, 1 timeout
status codes: 39990 2xx, 0 3xx, 0 4xx, 4 5xx
traffic: 5.41MB (5674308) total, 118.96KB (121812) headers (space savings 96.26%), 4.03MB data
                     min         max         mean         sd        +/- sd
time for request:      754us      6.50ms      2.74ms       642us    69.91%
"""
SERVER = RunningServer("any", 1, Ports(8000, 8001, 8002))


def test_the_summary_is_read() -> None:
    assert parse_summary(OUTPUT) == Summary(succeeded=39990, failed=7, per_second=23089.57)


def test_output_without_a_summary_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match=r"h2load printed no summary:\nconnect failed"):
        parse_summary("connect failed")


@pytest.mark.parametrize("summary", [Summary(39, 0, 1.0), Summary(40, 1, 1.0)])
def test_anything_less_than_all_requests_is_an_error(summary: Summary) -> None:
    with pytest.raises(BenchmarkError, match="of 40 requests succeeded"):
        checked(summary, 40)


def test_all_requests_pass() -> None:
    assert checked(Summary(40, 0, 1.0), 40).succeeded == 40


def test_the_rate_leaves_out_the_slow_end() -> None:
    busy = np.array([[at, 500] for at in range(0, 800_000, 1000)])
    alone = np.array([[999_000, 1000]])
    assert steady_rate(np.vstack([alone, busy])) == pytest.approx(750 / 0.8, rel=0.01)


def test_a_steady_run_has_its_plain_rate() -> None:
    log = np.array([[at, 100] for at in range(0, 1_000_000, 100)])
    assert steady_rate(log) == pytest.approx(10_000, rel=0.001)


def test_grpc_streams_share_connections(tmp_path: Path) -> None:
    words = command(Case("identity", "grpc", 64), SERVER, tmp_path)
    assert words[words.index("-c") + 1] == words[words.index("-m") + 1] == "8"
    assert "content-type: application/grpc" in words
    assert words[-1] == "http://127.0.0.1:8001/inference.GRPCInferenceService/ModelInfer"


def test_http_has_a_connection_for_each_request(tmp_path: Path) -> None:
    words = command(Case("image", "http", 16, client_threads=2), SERVER, tmp_path)
    body = (tmp_path / "body.bin").read_bytes()
    assert (words[words.index("-c") + 1], words[words.index("-t") + 1]) == ("16", "2")
    assert "--h1" in words
    header_bytes = body.index(b"]}") + 2
    assert f"inference-header-content-length: {header_bytes}" in words
    assert words[-1] == "http://127.0.0.1:8000/v2/models/image/infer"
