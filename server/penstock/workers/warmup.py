"""Runs the samples of `model_warmup` through a model that was just loaded, before it gets its first request."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from penstock import model_config
from penstock.backends.base import Batch, LoadedModel, RequestInfo
from penstock.backends.isolation import one_line
from penstock.errors import LoadFailed, ModelFailed
from penstock.types import Array
from penstock.workers.rehearsal import rehearse
from penstock.workers.scatter import write_outputs
from penstock.workers.slab import PAGE_BYTES, Slab
from penstock.workers.warmup_data import one_row
from penstock.workers.warmup_samples import Sample, complaints, parse

log = logging.getLogger(__name__)


def warm_up(model: LoadedModel, model_dir: Path) -> None:
    """Run all samples, and check that their outputs could be sent: names, datatypes, shapes.

    Raises LoadFailed, with the sample's name and the reason, at the first that can't be made or fails.
    """
    config = parse(model.config)
    if not config.model_warmup:
        return
    with closing(Slab.create(PAGE_BYTES)) as slab:
        for index, sample in enumerate(config.model_warmup):
            name = sample.name or str(index)
            for path, text in complaints(config, index, complete=True):
                raise LoadFailed(f"warm-up sample '{name}': {path} {text}")
            started = time.monotonic()
            try:
                row = one_row(config.input, sample, model_dir)
                _run(model, sample, row, slab)
            except Exception as error:
                raise LoadFailed(f"warm-up sample '{name}' failed: {one_line(error)}") from error
            seconds = time.monotonic() - started
            log.debug("warm-up sample '%s': %d runs in %.3f s", name, sample.runs, seconds)


def _run(model: LoadedModel, sample: Sample, row: Mapping[str, Array], slab: Slab) -> None:
    config = model_config.parse(model.config)
    batching = config.max_batch_size > 0
    requests = [RequestInfo(rows=1) for _ in range(sample.rows)]
    for _ in range(sample.runs):
        # made anew for each run: a model may write into its inputs
        inputs = {name: _batch(array, sample.rows, batching) for name, array in row.items()}
        if config.decoupled:
            rehearse(model, config, inputs, sample.rows)
            continue
        answers = model.execute(Batch(inputs, requests))
        _, errors = write_outputs(slab, 0, config, requests, answers)
        if errors:
            raise ModelFailed(errors[0].reason)


def _batch(row: Array, rows: int, batching: bool) -> Array:
    return np.repeat(row[np.newaxis], rows, axis=0) if batching else row.copy()
