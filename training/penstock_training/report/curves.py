"""Curves of a training, from the file that the loop writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock_training.report.charts import Curve

Series = Mapping[str, list[tuple[float, float]]]
MOST: Final = 4
"""Lines of one chart."""


def read_series(path: Path) -> Series:
    """Values by step, by name. What a resumed run has noted twice counts as it was noted last."""
    found: dict[str, dict[float, float]] = {}
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            # a killed process has not finished it
            continue
        step = values.pop("step", None)
        for name, value in values.items():
            if isinstance(value, int | float) and isinstance(step, int | float):
                found.setdefault(name, {})[float(step)] = float(value)
    return {name: sorted(points.items()) for name, points in found.items()}


def losses(series: Series) -> list[Curve]:
    """Of training and validation."""
    return _chosen(series, [name for name in series if name.rpartition("/")[2] == "loss"])


def validation_metrics(series: Series) -> list[Curve]:
    """What validation counts beside the loss."""
    prefix = "validation/"
    return _chosen(series, [n for n in series if n.startswith(prefix) and n != f"{prefix}loss"])


def _chosen(series: Series, names: list[str]) -> list[Curve]:
    # the training's own come first
    ordered = sorted(names, key=lambda name: (not name.startswith("train"), name))
    return [Curve(name, series[name]) for name in ordered[:MOST]]
