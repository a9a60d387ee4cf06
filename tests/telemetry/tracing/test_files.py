"""Traces as files: whole JSON at every moment, rotated, and no harm when they can't be written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.telemetry.tracing.array_file import ArrayFile, check_writable
from penstock.telemetry.tracing.files import TraceFiles
from penstock.telemetry.tracing.records import trace_json
from penstock.telemetry.tracing.sampler import Sampler
from penstock.telemetry.tracing.settings import TraceSetting
from penstock.telemetry.tracing.trace import Trace, TracedTensor
from penstock.telemetry.tracing.writer import TraceWriter
from penstock.types import TracedCall


def sampler(count: int = -1, log_frequency: int = 0) -> Sampler:
    return Sampler(TraceSetting(("TIMESTAMPS",), 1, count, log_frequency))


def trace(number: int, group: Sampler) -> Trace:
    call = TracedCall("HTTP", 5, received_ns=6)
    made = Trace(iter([number]), group, "m", 3, 'a"b', call, lambda _: None, tensors=False)
    made.points += (("REQUEST_START", 7), ("QUEUE_START", 7), ("REQUEST_END", 9))
    made.sends.append(("HTTP_SEND_START", 9))
    return made


def ids(path: Path) -> list[int]:
    """The traces in a file, in order."""
    return list(dict.fromkeys(record["id"] for record in json.loads(path.read_text())))


def test_a_trace_as_triton_writes_it() -> None:
    records = json.loads(b"[" + trace_json(trace(4, sampler()), timestamps=True) + b"]")
    assert records == [
        {"id": 4, "timestamps": [{"name": "HTTP_RECV_START", "ns": 5}]},
        {"id": 4, "timestamps": [{"name": "HTTP_RECV_END", "ns": 6}]},
        {"id": 4, "model_name": "m", "model_version": 3, "request_id": 'a"b'},
        {"id": 4, "timestamps": [{"name": "REQUEST_START", "ns": 7}]},
        {"id": 4, "timestamps": [{"name": "QUEUE_START", "ns": 7}]},
        {"id": 4, "timestamps": [{"name": "REQUEST_END", "ns": 9}]},
        {"id": 4, "timestamps": [{"name": "HTTP_SEND_START", "ns": 9}]},
    ]


@pytest.mark.parametrize(
    ("datatype", "array", "text"),
    [
        ("FP32", np.array([0.1, 2, -3e-9], np.float32), "0.1,2,-3e-09"),
        ("FP64", np.array([0.1]), "0.1"),
        ("INT64", np.array([-5, 7]), "-5,7"),
        ("BOOL", np.array([True, False]), "1,0"),
        ("UINT8", np.array([65, 0], np.uint8), "65,0"),
        ("FP16", np.array([1], np.float16), ""),
    ],
)
def test_tensors_as_text(datatype: str, array: Any, text: str) -> None:
    made = trace(1, sampler())
    made.tensors.append(TracedTensor("A", "X", datatype, array.shape, array.tobytes()))
    records = json.loads(b"[" + trace_json(made, timestamps=False) + b"]")
    shape = str(len(array))
    assert records[-1] == {
        "id": 1,
        "activity": "A",
        "tensor": {"name": "X", "data": text, "shape": shape, "dtype": datatype},
    }


def test_strings_as_text() -> None:
    made = trace(1, sampler())
    data = b'\x03\x00\x00\x00a"b\x01\x00\x00\x00\xff'
    made.tensors.append(TracedTensor("A", "X", "BYTES", (2, 1), data))
    records = json.loads(b"[" + trace_json(made, timestamps=False) + b"]")
    assert records[-1]["tensor"]["data"] == '"a"b","\\xff"'
    assert records[-1]["tensor"]["shape"] == "2,1"


def test_one_file_grows_and_is_whole_at_every_moment(tmp_path: Path) -> None:
    files, group = TraceFiles(tmp_path / "t.json"), sampler()
    for number in (1, 2, 3):
        files.write(trace(number, group))
        assert ids(tmp_path / "t.json") == list(range(1, number + 1))
    files.close()
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_what_was_there_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[1]")
    files = TraceFiles(tmp_path / "t.json")
    files.write(trace(1, sampler()))
    files.close()
    assert (tmp_path / "t.json.previous").read_text() == "[1]"


def test_so_many_traces_a_numbered_file(tmp_path: Path) -> None:
    files, group = TraceFiles(tmp_path / "t.json"), sampler(log_frequency=2)
    for number in range(1, 4):
        files.write(trace(number, group))
    assert ids(tmp_path / "t.json.0") == [1, 2]
    assert not (tmp_path / "t.json.1").exists()
    files.close()
    assert ids(tmp_path / "t.json.1") == [3]
    assert not list(tmp_path.glob("*.part"))


def test_the_last_of_a_count_completes_its_file(tmp_path: Path) -> None:
    files, group = TraceFiles(tmp_path / "t.json"), sampler(count=3)
    for number in range(1, 4):
        assert not (tmp_path / "t.json.0").exists()
        files.write(trace(number, group))
    assert ids(tmp_path / "t.json.0") == [1, 2, 3]


def test_a_count_that_rotates_completes_its_last_file_too(tmp_path: Path) -> None:
    files, group = TraceFiles(tmp_path / "t.json"), sampler(count=3, log_frequency=2)
    for number in range(1, 4):
        files.write(trace(number, group))
    assert [ids(tmp_path / f"t.json.{index}") for index in (0, 1)] == [[1, 2], [3]]


def test_numbered_files_that_are_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t.json.0").write_text("[]")
    files = TraceFiles(tmp_path / "t.json")
    files.write(trace(1, sampler(log_frequency=1)))
    assert (tmp_path / "t.json.0").read_text() == "[]"
    assert ids(tmp_path / "t.json.1") == [1]


def test_settings_that_change_complete_their_file(tmp_path: Path) -> None:
    files, group, other = TraceFiles(tmp_path / "t"), sampler(log_frequency=9), sampler(count=9)
    files.write(trace(1, group))
    files.write(trace(2, other))
    files.retire(group)
    assert ids(tmp_path / "t.0") == [1]
    assert not (tmp_path / "t.1").exists()
    files.close()


def test_a_full_disk_is_told_once_and_forgotten_when_it_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.json"
    path.symlink_to("/dev/full")
    files, group = TraceFiles(path), sampler()
    with caplog.at_level(logging.INFO):
        for number in (1, 2):
            files.write(trace(number, group))
        assert files.problem == f"{path} can't be written: No space left on device"
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        path.unlink()
        files.close()
        files.write(trace(3, group))
    assert files.problem == ""
    assert caplog.messages[-1] == "traces are written again"
    assert ids(path) == [3]
    files.close()


def test_a_write_that_fails_leaves_the_array_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ArrayFile(tmp_path / "t")
    file.append(b"1")
    real, calls = __import__("os").pwrite, []

    def half(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(data)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return int(real(descriptor, data[:2] if len(calls) == 1 else data, offset))

    monkeypatch.setattr("os.pwrite", half)
    with pytest.raises(OSError, match="No space"):
        file.append(b"2222")
    assert json.loads((tmp_path / "t").read_text()) == [1]
    file.append(b"3")
    assert json.loads((tmp_path / "t").read_text()) == [1, 3]
    file.close()


def test_looking_whether_a_file_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "new"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").write_text("x")
    check_writable(str(tmp_path / "old"))
    assert (tmp_path / "old").read_text() == "x"
    with pytest.raises(FileNotFoundError):
        check_writable(str(tmp_path / "no" / "file"))


def test_the_writer_writes_all_before_it_ends(tmp_path: Path) -> None:
    writer, group = TraceWriter(lambda: TraceFiles(tmp_path / "t")), sampler(log_frequency=3)
    writer.retire(group)
    for number in range(1, 6):
        writer.put(trace(number, group))
    writer.close()
    assert [ids(tmp_path / f"t.{index}") for index in (0, 1)] == [[1, 2, 3], [4, 5]]
    assert writer.problem == ""


def test_a_writer_that_never_wrote_has_no_thread() -> None:
    writer = TraceWriter(lambda: pytest.fail("made"))
    writer.close()
    assert writer.problem == ""


def test_one_trace_that_cannot_be_written_does_not_end_the_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer, group = TraceWriter(lambda: TraceFiles(tmp_path / "t")), sampler()
    broken = trace(1, group)
    broken.tensors.append(TracedTensor("A", "X", "FP32", (3,), b"odd"))
    writer.put(broken)
    writer.put(trace(2, group))
    writer.close()
    assert ids(tmp_path / "t") == [2]
    assert "a trace could not be written" in caplog.text
