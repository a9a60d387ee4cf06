"""Records → files: by table and day, complete in time, and what becomes of them when the disk is full."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, Schema, convert_to_deltalake
from deltalake.schema import PrimitiveType

from captured import DAY_US, TIME_US, config, kept, lake, record, rows, settings, table, tensors_of
from penstock.capture import lake as lake_module
from penstock.capture import writer as module
from penstock.capture.delta import DeltaTables
from penstock.capture.lake import UNFINISHED
from penstock.capture.messages import Written
from penstock.capture.redaction import Redaction
from penstock.capture.writer import Writer


class Clock:
    """Seconds, as a test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def writer(folder: Path, clock: Clock | None = None, **fields: Any) -> Writer:
    """That knows table 1."""
    made = Writer(settings(folder, **fields), Redaction(), clock=clock or Clock())
    made.take(table())
    return made


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model=*/date=*/*.parquet"))


def test_records_are_in_a_file_when_their_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    made = writer(tmp_path, clock, rotate_secs=60)
    assert made.due_in_s is None
    made.take(record(request_id="a"))
    clock.now += 20
    made.take(record(request_id="b"))
    assert made.due_in_s == 40
    made.finish_due()
    assert files(tmp_path) == []
    clock.now += 40
    made.finish_due()
    assert [row["request_id"] for row in rows(tmp_path)] == ["a", "b"]
    (path,) = files(tmp_path)
    assert made.written == Written(2, 0, 1, path.stat().st_size, False)
    assert made.due_in_s is None


def test_a_full_file_is_complete_at_once(tmp_path: Path) -> None:
    made = writer(tmp_path, rotate_rows=3)
    for _ in range(7):
        made.take(record())
    assert [pq.read_metadata(path).num_rows for path in files(tmp_path)] == [3, 3]
    made.finish_all()
    assert made.written.records == 7


def test_a_large_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 4096)
    made = writer(tmp_path, rotate_bytes=10_000)
    noise = np.random.default_rng(1)
    for _ in range(40):
        made.take(record(inputs=[kept(noise.random(500))]))
    assert len(files(tmp_path)) > 3
    assert all(path.stat().st_size < 20_000 for path in files(tmp_path))
    made.finish_all()
    assert len(rows(tmp_path)) == 40


def test_memory_is_bounded_over_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 10_000)
    made = writer(tmp_path)
    for number in range(2, 12):
        made.take(table(number, version=number))
    for at in range(200):
        made.take(record(table=1 + at % 11))
        assert made._gathered_bytes < 11_000
    assert files(tmp_path) == []
    made.finish_all()
    assert len(rows(tmp_path)) == 200


def test_each_day_is_a_folder_of_its_own(tmp_path: Path) -> None:
    made = writer(tmp_path)
    for time_us in (TIME_US - 1, TIME_US, TIME_US + DAY_US):
        made.take(record(time_us=time_us))
    made.finish_all()
    assert [path.parent.name for path in files(tmp_path)] == [
        "date=2026-11-27",
        "date=2026-11-28",
        "date=2026-11-29",
    ]
    assert [row["date"] for row in rows(tmp_path)] == ["2026-11-27", "2026-11-28", "2026-11-29"]


def test_names_of_records_are_theirs_alone(tmp_path: Path) -> None:
    for _ in range(2):
        made = writer(tmp_path)
        made.take(record())
        made.take(record(responses=[[kept([1])], [kept([2])]]))
        made.finish_all()
    names = [row["record"] for row in rows(tmp_path)]
    assert len(names) == 6 and len(set(names)) == 4


def test_what_cant_be_written_is_lost_said_once_and_the_next_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = writer(tmp_path, rotate_rows=2)
    made.take(record())
    # nothing can be made in it
    (tmp_path / UNFINISHED).write_text("in the way")
    for _ in range(5):
        made.take(record())
    assert (made.written.records, made.written.lost, made.written.failing) == (0, 6, True)
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    assert "are lost" in caplog.text
    (tmp_path / UNFINISHED).unlink()
    made.take(record())
    made.finish_all()
    assert (made.written.records, made.written.lost, made.written.failing) == (1, 6, False)
    assert "can be written again" in caplog.text
    assert len(rows(tmp_path)) == 1


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer(tmp_path)
    made.take(record())
    real = lake_module.LakeFile.finish

    def full(self: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lake_module.LakeFile, "finish", full)
    made.finish_all()
    assert made.written.lost == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.setattr(lake_module.LakeFile, "finish", real)
    made.take(record())
    made.finish_all()
    assert len(rows(tmp_path)) == 1


def test_what_can_not_be_hashed_is_not_written(tmp_path: Path) -> None:
    made = Writer(settings(tmp_path), Redaction("hash"))
    made.take(table())
    made.take(record())
    made.finish_all()
    assert (made.written.lost, files(tmp_path)) == (1, [])


def versions(made: Writer) -> None:
    """Two versions of one model, the second with another output, and a type that readers must know."""
    made.take(record())
    images = config(input=tensors_of(X="FP32"), output=tensors_of(Y="FP32", Z="UINT8"))
    made.take(table(2, version=4, of=images))
    made.take(record(table=2, responses=[[kept([3]), kept([250], "UINT8")]]))


def test_pandas_and_pyarrow_read_it(tmp_path: Path) -> None:
    made = writer(tmp_path)
    versions(made)
    made.finish_all()
    assert lake(tmp_path).num_rows == 2
    frame = pd.read_parquet(tmp_path / "model=m", filters=[("model_version", "==", 3)])
    assert frame["output_Y"][0].tolist() == [3.0]
    assert frame["time"].dt.tz is not None


def test_deltalake_converts_it(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.take(record())
    made.take(record(inputs=[None], responses=[]))
    made.finish_all()
    root = str(tmp_path / "model=m")
    dates = Schema([Field("date", PrimitiveType("string"))])
    convert_to_deltalake(root, partition_by=dates, partition_strategy="hive")
    found = DeltaTable(root).to_pyarrow_table()
    assert found["input_X"].to_pylist() == [[1, 2], None]
    assert found["date"].to_pylist() == ["2026-11-28"] * 2


def test_a_delta_table_has_each_file_that_is_complete(tmp_path: Path) -> None:
    made = Writer(settings(tmp_path), Redaction(), DeltaTables(tmp_path))
    made.take(table())
    versions(made)
    made.finish_all()
    made.take(record())
    made.finish_all()
    assert made.written.lost == 0
    found = DeltaTable(tmp_path / "model=m")
    assert len(found.file_uris()) == len(files(tmp_path)) == 3
    assert sorted(found.to_pyarrow_table()["model_version"].to_pylist()) == [3, 3, 4]
    assert found.to_pyarrow_table()["output_Z"].combine_chunks().drop_null().to_pylist() == [[250]]
    # an older state is still there
    assert DeltaTable(tmp_path / "model=m", version=1).to_pyarrow_table().num_rows == 1


def test_a_file_that_the_delta_table_does_not_take_is_no_file(tmp_path: Path) -> None:
    made = Writer(settings(tmp_path), Redaction(), DeltaTables(tmp_path))
    made.take(table())
    (tmp_path / "model=m").mkdir()
    (tmp_path / "model=m" / "_delta_log").write_text("in the way")
    made.take(record())
    made.finish_all()
    assert (made.written.lost, files(tmp_path)) == (1, [])
    shutil.rmtree(tmp_path / "model=m")
    made.take(record())
    made.finish_all()
    assert made.written.records == 1
