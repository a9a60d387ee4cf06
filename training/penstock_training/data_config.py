"""`[data]`: the tables that a run reads. train-data's part of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from penstock.config_section import Name, Section


class TableSettings(Section):
    """`[data.tables.NAME]`: one table of the lake, at one version."""

    uri: str
    """Folder of Parquet files or a Delta table: a path, relative to the configuration, or any fsspec URL."""
    version: str = ""
    """Delta: its version's number. Parquet: the digest of its files. Empty: what is there when the run starts; the run
    notes it, and reads that one when it is resumed."""
    columns: tuple[str, ...] = ()
    """Columns to read; none: all."""
    filter: str = ""
    """Rows to read, such as `outcome = 'ok' and date >= '2026-01-01'`; empty: all."""


class DataSettings(Section):
    """What the run is trained on."""

    tables: Mapping[Name, TableSettings] = Field(default_factory=dict)
    """The tables, by the names by which the recipe asks for them."""
    prefetch: int = Field(default=0, ge=0)
    """Micro-batches that a thread reads ahead: pays where reading is slow, or a GPU computes. 0: none."""
