"""Tables of the lake: versions, partitions, filesystems, and what is wrong with them."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from penstock_training.data.errors import (
    SchemaMismatch,
    TableChanged,
    TableMissing,
    VersionMissing,
)
from penstock_training.data.lake import Lake
from penstock_training.data.table import Table
from penstock_training.data_config import TableSettings
from penstock_training.errors import DataError


def numbered(start: int, rows: int = 4) -> pa.Table:
    """Rows `start`, `start + 1` …, half of them to be held out."""
    numbers = list(range(start, start + rows))
    return pa.table(
        {
            "number": pa.array(numbers, pa.int64()),
            "square": pa.array([float(n * n) for n in numbers], pa.float32()),
            "split": ["train" if n % 2 else "held / out" for n in numbers],
        }
    )


def numbers(table: Table) -> list[int]:
    """The column `number`, in order."""
    found: list[int] = table.read()["number"].to_pylist()
    return found


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """A table of versions 0, 1, 2: four rows more each."""
    folder = tmp_path / "delta"
    for version in range(3):
        write_deltalake(folder, numbered(4 * version), mode="append", partition_by=["split"])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two days of one model, in files with row groups of two rows."""
    root = tmp_path / "parquet"
    for day, start in ((27, 0), (28, 10)):
        target = root / "model=digits" / f"date=2026-11-{day}"
        target.mkdir(parents=True)
        pq.write_table(numbered(start, 6), target / "part.parquet", row_group_size=2)
    return root


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's filesystem in memory, which all tests of a process share."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


def test_each_version_of_a_delta_table_is_read_as_it_was(delta: Path) -> None:
    lake = Lake()
    for version, rows in (("0", 4), ("1", 8), ("2", 12), ("", 12)):
        table = lake.open(TableSettings(uri=str(delta), version=version))
        assert sorted(numbers(table)) == list(range(rows))


def test_a_delta_table_that_grows_after_it_was_pinned_is_read_as_it_was(delta: Path) -> None:
    pinned = Lake().pin(TableSettings(uri=str(delta)))
    write_deltalake(delta, numbered(100), mode="overwrite", schema_mode="overwrite")
    assert pinned.version == f"delta-2-{DeltaTable(delta).metadata().id}"
    assert sorted(numbers(Lake().open(pinned))) == list(range(12))


def test_a_version_that_a_delta_table_does_not_have(delta: Path) -> None:
    with pytest.raises(VersionMissing, match=r"has no version 7, the newest is 2"):
        Lake().open(TableSettings(uri=str(delta), version="7"))
    with pytest.raises(VersionMissing, match=r"'yesterday' is no version of a Delta table"):
        Lake().open(TableSettings(uri=str(delta), version="yesterday"))


def test_a_delta_table_that_was_made_anew_is_not_the_one_that_was_pinned(delta: Path) -> None:
    pinned = Lake().pin(TableSettings(uri=str(delta), version="0"))
    shutil.rmtree(delta)
    write_deltalake(delta, numbered(0))
    with pytest.raises(TableChanged, match="was made anew"):
        Lake().open(pinned)


def test_a_version_whose_files_were_vacuumed_says_so(delta: Path) -> None:
    pinned = Lake().pin(TableSettings(uri=str(delta), version="1"))
    write_deltalake(delta, numbered(0), mode="overwrite")
    DeltaTable(delta).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(TableChanged, match=r"split=.*parquet is not there any more; vacuumed\?"):
        Lake().read(pinned)


def test_a_delta_table_with_deletion_vectors_is_refused_and_not_read_wrong(delta: Path) -> None:
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"]}
    commit = delta / "_delta_log" / f"{3:020}.json"
    commit.write_text(json.dumps({"protocol": protocol | {"writerFeatures": ["deletionVectors"]}}))
    with pytest.raises(DataError, match="has deletion vectors, which can't be read: rewrite it"):
        Lake().open(TableSettings(uri=str(delta)))
    assert len(Lake().open(TableSettings(uri=str(delta), version="2"))) == 12


def test_a_delta_table_on_any_filesystem_is_read_from_its_last_checkpoint(
    delta: Path, memory: fsspec.AbstractFileSystem
) -> None:
    DeltaTable(delta).create_checkpoint()
    write_deltalake(delta, numbered(12), mode="append")
    (delta / "_delta_log" / f"{0:020}.json").unlink()
    memory.put(str(delta), "/lake/delta", recursive=True)
    lake = Lake()
    table = lake.open(TableSettings(uri="memory://lake/delta"))
    assert sorted(numbers(table)) == list(range(16))
    older = lake.open(TableSettings(uri="memory://lake/delta", version="2"))
    assert sorted(numbers(older)) == list(range(12))
    with pytest.raises(VersionMissing, match="has no version 9, the newest is 3"):
        lake.open(TableSettings(uri="memory://lake/delta", version="9"))


def test_parquet_in_a_zip_file_is_a_table_too(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "lake.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in folder.rglob("*.parquet"):
            zipped.write(file, Path("table") / file.relative_to(folder))
    table = Lake().open(TableSettings(uri=f"zip://table::file://{archive}"))
    assert numbers(table) == [*range(6), *range(10, 16)]
    assert table.version == Lake().pin(TableSettings(uri=f"file://{folder}")).version


def test_a_single_file_is_a_table(folder: Path) -> None:
    (file,) = (folder / "model=digits" / "date=2026-11-27").iterdir()
    assert numbers(Lake().open(TableSettings(uri=str(file)))) == list(range(6))


def test_partitions_are_columns_and_files_of_others_are_not_opened(folder: Path) -> None:
    (folder / "model=digits" / "date=2026-11-27" / "part.parquet").write_bytes(b"never opened")
    settings = TableSettings(uri=str(folder), filter="date > '2026-11-27' and model == 'digits'")
    table = Lake().open(settings)
    assert numbers(table) == list(range(10, 16))
    assert len(table) == 6
    assert set(table.select("date").read()["date"].to_pylist()) == {"2026-11-28"}


def test_row_groups_that_cannot_fit_are_left_out_and_the_others_filtered(folder: Path) -> None:
    table = Lake().open(TableSettings(uri=str(folder), filter="number in [3, 10, 11]"))
    assert [(group.file, group.number, group.rows) for group in table.groups] == [
        (0, 1, 1),
        (1, 0, 2),
    ]
    assert numbers(table) == [3, 10, 11]
    assert len(table) == 3
    assert numbers(table.where("square > 99.0 and not number == 11")) == [10]


def test_only_the_named_columns_are_read(folder: Path) -> None:
    table = Lake().open(TableSettings(uri=str(folder), columns=("square",)))
    assert table.read().column_names == ["square"]
    assert table.schema.names == ["square"]
    with pytest.raises(
        SchemaMismatch, match=r"no column 'sqare'; there are: number, square, split, model, date"
    ):
        Lake().open(TableSettings(uri=str(folder), columns=("sqare",)))


def test_a_run_reads_the_files_of_a_folder_that_were_there_when_it_began(
    folder: Path, tmp_path: Path
) -> None:
    pinned = Lake(tmp_path / "run").pin(TableSettings(uri=str(folder)))
    late = folder / "model=digits" / "date=2026-11-29"
    late.mkdir()
    pq.write_table(numbered(20), late / "part.parquet")
    # another process, or the same run resumed
    assert numbers(Lake(tmp_path / "run").open(pinned)) == [*range(6), *range(10, 16)]
    with pytest.raises(TableChanged, match="are not those that were pinned"):
        Lake(tmp_path / "elsewhere").open(pinned)


def test_a_file_that_is_changed_after_it_was_pinned_is_noticed(
    folder: Path, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "run")
    pinned = lake.pin(TableSettings(uri=str(folder)))
    (first, second) = sorted(folder.rglob("*.parquet"))
    os.utime(first, (1, 1))
    assert len(lake.read(pinned)) == 12, "touched, not changed"
    changed = bytearray(second.read_bytes())
    changed[10] ^= 1
    second.write_bytes(changed)
    with pytest.raises(TableChanged, match=r"date=2026-11-28/part.parquet is not what it was"):
        lake.read(pinned)


def test_the_version_of_a_folder_stands_for_contents_and_not_for_dates(
    folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copy)
    first = Lake().pin(TableSettings(uri=str(folder)))
    assert Lake().pin(TableSettings(uri=str(copy))).version == first.version
    (file, _) = copy.rglob("*.parquet")
    pq.write_table(numbered(1, 6), file, row_group_size=2)
    assert Lake().pin(TableSettings(uri=str(copy))).version != first.version


def test_others_bookkeeping_is_no_data(folder: Path) -> None:
    for name in ("_SUCCESS", "_metadata.parquet", ".part.parquet.tmp", "notes.txt"):
        (folder / "model=digits" / "date=2026-11-27" / name).write_bytes(b"none")
    (folder / "_staging").mkdir()
    (folder / "_staging" / "part.parquet").write_bytes(b"none")
    assert len(Lake().open(TableSettings(uri=str(folder)))) == 12


def test_a_column_that_older_files_lack_is_null_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [2], "b": ["x"]}), tmp_path / "2.parquet")
    table = Lake().open(TableSettings(uri=str(tmp_path)))
    assert table.read().to_pydict() == {"a": [1, 2], "b": [None, "x"]}
    assert table.where("b is not None").read().to_pydict() == {"a": [2], "b": ["x"]}


def test_files_that_disagree_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["one"]}), tmp_path / "2.parquet")
    with pytest.raises(
        SchemaMismatch, match=r"column 'a' is int64 in 1.parquet, string in 2.parquet"
    ):
        Lake().open(TableSettings(uri=str(tmp_path)))


def test_nothing_there(tmp_path: Path) -> None:
    for uri in (str(tmp_path), str(tmp_path / "none"), "memory://none"):
        with pytest.raises(TableMissing, match="there is no Parquet file and no Delta table"):
            Lake().open(TableSettings(uri=uri))
    with pytest.raises(TableMissing, match="nofs"):
        Lake().open(TableSettings(uri="nofs://bucket/table"))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no Parquet")
    with pytest.raises(SchemaMismatch, match=r"x.parquet is no Parquet file"):
        Lake().open(TableSettings(uri=str(tmp_path)))


def test_parquet_without_a_log_has_no_numbered_versions(folder: Path) -> None:
    with pytest.raises(VersionMissing, match="has no version 3: Parquet files without a Delta log"):
        Lake().open(TableSettings(uri=str(folder), version="3"))


def test_a_link_that_leads_elsewhere_later_changes_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    pq.write_table(numbered(50), tmp_path / "other" / "part.parquet")
    link = tmp_path / "current"
    link.symlink_to(folder)
    pinned = Lake().pin(TableSettings(uri=str(link)))
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert len(Lake().open(pinned)) == 12
    assert len(Lake().open(TableSettings(uri=str(link)))) == 4


def test_a_table_goes_to_other_processes(folder: Path, tmp_path: Path) -> None:
    table = Lake(tmp_path / "run").open(TableSettings(uri=str(folder), filter="number > 3"))
    assert numbers(pickle.loads(pickle.dumps(table))) == numbers(table)


def test_the_same_columns_and_rows_have_the_same_digest(folder: Path) -> None:
    table = Lake().open(TableSettings(uri=str(folder)))
    assert (
        table.where("number > 3").digest
        == Lake().open(TableSettings(uri=str(folder), filter="number > 3")).digest
    )
    digests = {table.digest, table.where("number > 4").digest, table.select("number").digest}
    assert len(digests) == 3
