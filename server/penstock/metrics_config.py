"""`--metrics-config`: which latency metrics there are, in Triton's spelling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


class MetricsConfig(msgspec.Struct, frozen=True):
    """What is shown beside the metrics that are always there."""

    counter_latencies: bool = True
    """`nv_inference_*_duration_us`."""
    histogram_latencies: bool = False
    """`nv_inference_first_response_histogram_ms`."""
    summary_latencies: bool = False
    """`nv_inference_*_summary_us`."""
    summary_quantiles: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99, 0.999)


_SWITCHES: Final = ("counter_latencies", "histogram_latencies", "summary_latencies")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def parse_metrics_config(texts: Iterable[str]) -> MetricsConfig:
    """All of the flag's values together; the last one of a name counts. Raises ValueError that names what is wrong."""
    config = MetricsConfig()
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text}: expected NAME=VALUE, such as summary_latencies=true")
        if name in _SWITCHES:
            on = _BOOLEANS.get(value.lower())
            if on is None:
                raise ValueError(f"{text}: expected true or false")
            config = msgspec.structs.replace(config, **{name: on})
        elif name == "summary_quantiles":
            config = msgspec.structs.replace(config, summary_quantiles=_quantiles(text, value))
        else:
            known = ", ".join((*_SWITCHES, "summary_quantiles"))
            raise ValueError(f"{text}: there is no {name}, expected one of {known}")
    return config


def _quantiles(text: str, value: str) -> tuple[float, ...]:
    """Of `0.5:0.05,0.9:0.01`: quantile and error. The error is checked and not needed: it is always 1 %."""
    quantiles = []
    for pair in value.split(","):
        try:
            quantile, error = map(float, pair.split(":"))
        except ValueError:
            quantile = error = -1.0
        if not (0 <= quantile <= 1 and 0 <= error <= 1):
            raise ValueError(
                f"{text}: {pair} is no QUANTILE:ERROR, two numbers from 0 to 1 such as 0.9:0.01"
            )
        quantiles.append(quantile)
    return tuple(quantiles)
