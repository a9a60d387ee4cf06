"""h2load: the lightest client, for gRPC (HTTP/2) and binary HTTP/1.1.

It can't see grpc-status, so the caller checks the server's own count of successes after each run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from penstock_loadtest.cases import Case
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.load import Load, run_program
from penstock_loadtest.payloads import grpc_frame, http_body, payload_for
from penstock_loadtest.servers import RunningServer

REQUESTS = re.compile(
    r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, "
    r"(\d+) failed, (\d+) errored, (\d+) timeout"
)
FINISHED = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
STEADY = (0.05, 0.85)
"""The part of a run in which every connection is busy: the first ones to end theirs leave the rest alone."""
INACTIVITY_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """What h2load prints."""

    succeeded: int
    failed: int
    """Failed, errored or timed out."""
    per_second: float


class H2load:
    """Runs h2load with a count of requests, never for a duration: at the end of a duration it resets what is
    under way, and Triton 2.51 is known to abort on that.
    """

    def __init__(self, case: Case, server: RunningServer, folder: Path) -> None:
        self._case = case
        self._log = folder / "h2load.log"
        self._command = command(case, server, folder)
        self._per_second = 0.0

    def warm_up(self, seconds: float) -> None:
        """Learn the rate from a short run, then run at it for `seconds`."""
        self._per_second = self.send(self._case.concurrency * 8).per_second
        self._per_second = self.send(self._count(seconds)).per_second

    def run(self, seconds: float) -> Load:
        """As many requests as take about `seconds` at the warm-up's rate."""
        self._log.unlink(missing_ok=True)
        count = self._count(seconds)
        logging = f"--log-file={self._log}"
        done = run_program(
            [self._command[0], logging, "-n", str(count), *self._command[1:]], _limit_s(seconds)
        )
        summary = checked(parse_summary(done.output), count)
        log = np.loadtxt(self._log, dtype=np.int64, usecols=(0, 2), ndmin=2)
        median, p99 = np.percentile(log[:, 1], [50, 99])
        return Load(
            requests=summary.succeeded,
            wall_s=done.wall_s,
            per_second=steady_rate(log),
            median_us=float(median),
            p99_us=float(p99),
            client_cpu_s=done.cpu_s,
            client_threads=self._case.client_threads,
        )

    def send(self, count: int) -> Summary:
        """Send so many requests, a multiple of the concurrency. Raises BenchmarkError where one failed."""
        command = [self._command[0], "-n", str(count), *self._command[1:]]
        return checked(parse_summary(run_program(command, _limit_s(0)).output), count)

    def _count(self, seconds: float) -> int:
        """A multiple of the concurrency, so that every stream gets the same share."""
        rounds = max(8, round(self._per_second * seconds / self._case.concurrency))
        return rounds * self._case.concurrency


def parse_summary(output: str) -> Summary:
    """Read h2load's standard output. Raises BenchmarkError where it isn't h2load's."""
    requests, finished = REQUESTS.search(output), FINISHED.search(output)
    if requests is None or finished is None:
        raise BenchmarkError(f"h2load printed no summary:\n{output[-500:]}")
    succeeded, failed, errored, timeout = map(int, requests.groups())
    return Summary(succeeded, failed + errored + timeout, float(finished[1]))


def checked(summary: Summary, count: int) -> Summary:
    """The summary again. Raises BenchmarkError unless all `count` requests got a 2xx."""
    if summary.succeeded != count or summary.failed:
        raise BenchmarkError(
            f"h2load: {summary.succeeded} of {count} requests succeeded, {summary.failed} failed"
        )
    return summary


def steady_rate(log: npt.NDArray[np.int64]) -> float:
    """Answers a second in the steady part of a run; `log` is [n, 2]: start and duration in µs."""
    ends = log.sum(axis=1)
    start, length = int(log[:, 0].min()), int(ends.max() - log[:, 0].min())
    low, high = (start + part * length for part in STEADY)
    answered = int(np.count_nonzero((ends >= low) & (ends < high)))
    return answered / ((high - low) * 1e-6)


def command(case: Case, server: RunningServer, folder: Path) -> list[str]:
    """The argv, less the count of requests; writes the request's body into `folder`."""
    payload = payload_for(case.model)
    body = folder / "body.bin"
    if case.protocol == "grpc":
        body.write_bytes(grpc_frame(payload))
        headers = ["content-type: application/grpc", "te: trailers"]
        url = f"http://{server.grpc_address}/inference.GRPCInferenceService/ModelInfer"
        flags = ["-m", str(case.concurrency // case.connections)]
    else:
        data, header_bytes = http_body(payload)
        body.write_bytes(data)
        headers = [
            "content-type: application/octet-stream",
            f"inference-header-content-length: {header_bytes}",
        ]
        url = f"{server.http_url}/v2/models/{case.model}/infer"
        flags = ["--h1"]
    threads = min(case.client_threads, case.connections)
    flags += ["-c", str(case.connections), "-t", str(threads), "-d", str(body)]
    flags += ["-N", f"{INACTIVITY_TIMEOUT_S}s"]
    return ["h2load", *flags, *(word for header in headers for word in ("-H", header)), url]


def _limit_s(seconds: float) -> float:
    """The rate may fall after the warm-up; a server that hangs is found by the inactivity time-out."""
    return seconds * 5 + 4 * INACTIVITY_TIMEOUT_S
