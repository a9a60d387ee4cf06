"""The three splits of a table that says by its column `split` what each row is for."""

from __future__ import annotations

from collections.abc import Callable

from penstock.errors import ConfigError
from penstock_training.config import TrainConfig
from penstock_training.data.table import Table
from penstock_training.errors import DataError
from penstock_training.recipe import Dataset, Lake, Splits

SPLIT = "split"


def splits_of(
    config: TrainConfig, lake: Lake, name: str, rows: Callable[[Table], Dataset]
) -> Splits:
    """Of the configured table of that name."""
    if name not in config.data.tables:
        raise ConfigError(
            f"this recipe reads [data.tables.{name}], which the configuration lacks; "
            f"`penstock-train table {name} FOLDER` makes an example of it"
        )
    table = lake.open(config.data.tables[name])
    found = {}
    for split in ("train", "validation", "test"):
        found[split] = rows(table.where(f"{SPLIT} == '{split}'"))
        if not len(found[split]):
            raise DataError(f"{table}: its column '{SPLIT}' says '{split}' in no row")
    return Splits(**found)
