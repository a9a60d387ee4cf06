"""Cases: selection by name, and how many connections carry them."""

from __future__ import annotations

import pytest

from penstock_loadtest.cases import EMBEDDER_CASE, PEER_CASES, Case, select
from penstock_loadtest.errors import BenchmarkError


def test_names_tell_model_protocol_and_concurrency() -> None:
    assert Case("identity", "grpc", 64).name == "identity-grpc-64"


def test_all_cases_without_a_pattern() -> None:
    assert select([]) == [*PEER_CASES, EMBEDDER_CASE]


def test_patterns_select_by_name() -> None:
    assert [case.name for case in select(["image-*", "identity-grpc-1"])] == [
        "identity-grpc-1",
        "image-grpc-16",
        "image-http-16",
    ]


def test_a_pattern_without_a_case_is_told() -> None:
    with pytest.raises(BenchmarkError, match=r"--case nothing-\*: no such case; there are id"):
        select(["identity-grpc-1", "nothing-*"])


@pytest.mark.parametrize("case", PEER_CASES, ids=lambda case: case.name)
def test_connections_times_streams_is_the_concurrency(case: Case) -> None:
    streams = 1 if case.protocol == "http" else case.concurrency // case.connections
    assert streams * case.connections == case.concurrency
