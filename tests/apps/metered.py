"""A Triton model that counts its requests: a counter, a gauge and a histogram of its own."""

import os
import signal
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """Answers what it was asked. An X of -1 ends the process."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the metrics; the families must be kept."""
        kinds = pb_utils.MetricFamily
        self.families = [
            kinds("metered_requests", "Requests of any model", kinds.COUNTER),
            kinds(name="metered_last", description="The last X", kind=kinds.GAUGE),
            kinds(name="metered:x", description="X", kind=kinds.HISTOGRAM),
        ]
        counter, gauge, histogram = self.families
        self.counter = counter.Metric(labels={"by": 'a "name"'})
        self.gauge = gauge.Metric()
        self.histogram = histogram.Metric(labels={}, buckets=[0.5, 5])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        value = float(x[0, 0])
        if value == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.counter.increment(1)
        self.gauge.set(value)
        self.histogram.observe(value)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])
