"""Files: unseen until they are complete, for their owner alone, and swept where nobody writes them any more."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from captured import DAY_US, TIME_US
from penstock.capture.lake import UNFINISHED, LakeFile, date_of, model_folder, prepare, sweep

SCHEMA = pa.schema([pa.field("x", pa.int64())])
ROWS = pa.table({"x": [1, 2]}, SCHEMA)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def seen(folder: Path) -> int:
    """As a reader of the lake sees it."""
    return ds.dataset(folder, format="parquet", partitioning="hive").to_table().num_rows  # type: ignore[no-any-return]


def test_a_file_is_seen_when_it_is_complete(tmp_path: Path) -> None:
    file = LakeFile(tmp_path / "lake", "m", "2026-11-28", SCHEMA)
    file.write(ROWS, 1)
    assert seen(tmp_path / "lake") == 0
    path = file.finish()
    assert path.parent == tmp_path / "lake" / "model=m" / "date=2026-11-28"
    assert seen(tmp_path / "lake") == 2
    assert list((tmp_path / "lake" / UNFINISHED).iterdir()) == []


def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        file = LakeFile(tmp_path / "a" / "lake", "m", "2026-11-28", SCHEMA)
        file.write(ROWS, 1)
        path = file.finish()
    finally:
        os.umask(umask)
    assert mode(path) == 0o600
    assert [mode(folder) for folder in path.parents[:4]] == [0o700] * 4


def test_names_of_models_are_one_folder_each(tmp_path: Path) -> None:
    assert model_folder(tmp_path, "a/../b=c d") == tmp_path / "model=a%2F..%2Fb%3Dc%20d"
    file = LakeFile(tmp_path, "b=c d", "2026-11-28", SCHEMA)
    file.write(ROWS, 1)
    file.finish()
    found = ds.dataset(tmp_path, format="parquet", partitioning="hive").to_table()
    assert set(found["model"].to_pylist()) == {"b=c d"}


def test_days_are_those_of_utc() -> None:
    assert date_of(TIME_US) == date_of(TIME_US + DAY_US - 1) == "2026-11-28"
    assert date_of(TIME_US - 1) == "2026-11-27"


def test_what_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    file = LakeFile(tmp_path, "m", "2026-11-28", SCHEMA)
    file.write(ROWS, 1)
    file.drop()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_files_of_dead_writers_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import pyarrow as pa;"
        "from penstock.capture.lake import LakeFile;"
        "LakeFile(Path(sys.argv[1]), 'm', '2026-11-28', pa.schema([pa.field('x', pa.int64())]));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *sys.path], check=False)
    living = LakeFile(tmp_path, "m", "2026-11-28", SCHEMA)
    assert len(list((tmp_path / UNFINISHED).iterdir())) == 2
    assert sweep(tmp_path) == 1
    living.write(ROWS, 1)
    living.finish()
    assert seen(tmp_path) == 2
    assert sweep(tmp_path) == 0


def test_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path) == 0


def test_a_folder_that_cant_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")
    with pytest.raises(OSError, match="lake"):
        prepare(tmp_path / "lake")
    prepare(tmp_path / "other")
    assert list((tmp_path / "other" / UNFINISHED).iterdir()) == []
