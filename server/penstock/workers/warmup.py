"""Runs the samples of `model_warmup` through a model that was just loaded, before it gets its first request."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from penstock import model_config
from penstock.backends.base import Batch, LoadedModel, RequestInfo
from penstock.backends.isolation import one_line
from penstock.backends.masks import masks_of
from penstock.backends.ragged import joined_rows, ragged_names
from penstock.errors import LoadFailed, ModelFailed
from penstock.image_config import as_clients_see
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
                row |= masks_of(row, model.config)
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
        if batching:
            batch = joined_rows(row, ragged_names(as_clients_see(model.config)), requests)
        else:
            batch = Batch({name: array.copy() for name, array in row.items()}, requests)
        if config.decoupled:
            rehearse(model, config, batch)
            continue
        answers = model.execute(batch)
        _, errors = write_outputs(slab, 0, config, requests, answers)
        if errors:
            raise ModelFailed(errors[0].reason)
