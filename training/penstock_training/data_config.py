"""`[data]`: the tables that a run reads. train-data's part of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from penstock.config_section import Name, Section


class TableSettings(Section):
    """`[data.tables.NAME]`: one table of the lake, at one version."""

    uri: str
    """Folder of Parquet files or a Delta table: a path, relative to the configuration, or any fsspec URL."""
    version: str = ""
    """Delta: its version's number. Parquet: `parquet-…`, a digest of its files. Empty: what is there when the run
    starts; the run notes it, and reads that one when it is resumed."""
    columns: tuple[str, ...] = ()
    """Columns to read; none: all."""
    filter: str = ""
    """Rows to read, such as `outcome == 'ok' and date >= '2026-01-01'`; empty: all. Partitions, files and row groups
    that can't hold any are not read."""


class DataSettings(Section):
    """What the run is trained on."""

    tables: Mapping[Name, TableSettings] = Field(default_factory=dict)
    """The tables, by the names by which the recipe asks for them."""
    access: Literal["memory", "mapped", "row_groups"] = "memory"
    """How processes get at rows. memory: each holds all of them. mapped: decoded once into files of the run's folder,
    which the processes of a machine share. row_groups: each reads the row groups of its part of the batches, again in
    every epoch; rows are mixed less."""
    lanes: int = Field(default=8, ge=1)
    """row_groups: so many streams of row groups make a batch; a multiple of the number of processes lets each of them
    read only its own."""
    window: int = Field(default=4, ge=1)
    """row_groups: so many row groups of a lane are mixed with one another."""
    prefetch: int = Field(default=0, ge=0)
    """Micro-batches that a thread reads ahead: pays where reading is slow, or a GPU computes. 0: none."""
