"""Records that the server has captured become samples."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock_training.data.captured import samples
from penstock_training.data.errors import BadValues, SchemaMismatch
from penstock_training.data.lake import Lake
from penstock_training.data_config import TableSettings

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", "UTC")),
        ("record", pa.string()),
        ("response", pa.int32()),
        ("model_version", pa.int64()),
        ("model_digest", pa.string()),
        ("outcome", pa.string()),
        ("sample", pa.float64()),
        ("truncated", pa.bool_()),
        ("input_IMAGE", pa.list_(pa.float32())),
        ("shape_input_IMAGE", pa.list_(pa.int64())),
        ("output_SCORES", pa.list_(pa.float32())),
        ("shape_output_SCORES", pa.list_(pa.int64())),
    ]
)


def record(name: str, rows: int, **changed: Any) -> dict[str, Any]:
    """A request of so many images of 2 pixels, and its answer of 3 scores each."""
    return {
        "time": datetime(2026, 11, 28, tzinfo=UTC),
        "record": name,
        "response": 0,
        "model_version": 3,
        "model_digest": "sha256:00",
        "outcome": "ok",
        "sample": 0.5,
        "truncated": False,
        "input_IMAGE": [float(n) for n in range(2 * rows)],
        "shape_input_IMAGE": [rows, 1, 2],
        "output_SCORES": [n / 10 for n in range(3 * rows)],
        "shape_output_SCORES": [rows, 3],
        **changed,
    }


def captured(folder: Path, *records: dict[str, Any]) -> Any:
    """The table of one model."""
    target = folder / "model=digits" / "date=2026-11-28"
    target.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(records), SCHEMA), target / "part.parquet")
    unfinished = folder / "model=digits" / ".inprogress"
    unfinished.mkdir()
    (unfinished / "part.parquet").write_bytes(b"not complete yet")
    return Lake().open(TableSettings(uri=str(folder / "model=digits")))


def test_each_row_of_a_request_is_a_sample(tmp_path: Path) -> None:
    table = captured(tmp_path, record("a", 1), record("b", 3), record("c", 0))
    found = samples(table, ["input_IMAGE", "output_SCORES"])
    assert found["record"].to_pylist() == ["a", "b", "b", "b"]
    assert found["input_IMAGE"].to_pylist() == [[0, 1], [0, 1], [2, 3], [4, 5]]
    assert found["output_SCORES"].to_pylist()[-1] == pytest.approx([0.6, 0.7, 0.8])
    assert set(found["model_version"].to_pylist()) == {3}


def test_only_whole_answers_are_samples(tmp_path: Path) -> None:
    table = captured(
        tmp_path,
        record("failed", 1, outcome="ModelFailed", output_SCORES=None, shape_output_SCORES=None),
        record("cut", 1, truncated=True),
        record("second response", 1, response=1, input_IMAGE=None, shape_input_IMAGE=None),
        record("without scores", 1, output_SCORES=None, shape_output_SCORES=None),
        record("good", 2),
    )
    assert samples(table, ["input_IMAGE", "output_SCORES"])["record"].to_pylist() == ["good"] * 2
    assert samples(table, ["input_IMAGE"])["record"].to_pylist() == [
        "without scores",
        "good",
        "good",
    ]
    assert len(samples(table.where("record == 'none'"), ["input_IMAGE"])) == 0


def test_tensors_that_were_not_captured(tmp_path: Path) -> None:
    table = captured(tmp_path, record("a", 1))
    with pytest.raises(
        SchemaMismatch,
        match=r"no column 'input_PIXELS'; tensors that .*: input_IMAGE, output_SCORES",
    ):
        samples(table, ["input_PIXELS"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"shape_input_IMAGE": [2, 1, 2]},
            r"record x: its tensors have the shapes .* no batch in common",
        ),
        ({"shape_input_IMAGE": []}, "no batch in common"),
        (
            {"input_IMAGE": [1.0]},
            r"record x: input_IMAGE has 1 elements, and the shape \[1, 1, 2\]",
        ),
    ],
)
def test_records_that_contradict_themselves(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    table = captured(tmp_path, record("x", 1, **changed))
    with pytest.raises(BadValues, match=says):
        samples(table, ["input_IMAGE", "output_SCORES"])
