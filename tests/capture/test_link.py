"""The line to the writer, with the writer's own end in a thread: bounded, found again, and empty at the end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from captured import record, rows, settings, table
from fake_workers import until
from penstock.capture.columns import Table
from penstock.capture.counts import CaptureCounts, Lost
from penstock.capture.link import CaptureLink
from penstock.capture.main import Server
from penstock.capture.messages import Frames, Record, entry_of, frame
from penstock.capture.redaction import Redaction
from penstock.capture.writer import Writer


class Ended:
    """A writer's process, as a thread. `kill` ends it as SIGKILL does: nothing of it is complete."""

    def __init__(self, folder: Path, path: Path, **fields: Any) -> None:
        self.server = Server(Writer(settings(folder, **fields), Redaction()), path)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()

    def stop(self) -> None:
        self.server.stop(signal.SIGTERM, None)
        self._thread.join()
        self.close()

    def kill(self) -> None:
        writer: Any = self.server._writer
        writer.finish_all = writer._open.clear
        self.stop()

    def close(self) -> None:
        for each in (
            self.server._listener,
            self.server._woken,
            self.server._waker,
            self.server._gateway,
        ):
            if each is not None:
                each.close()
        self.server._selector.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Ended]]:
    """`start(**settings)`: a writer on `capture.sock`."""
    begun: list[Ended] = []

    def begin(**fields: Any) -> Ended:
        begun.append(Ended(tmp_path / "lake", tmp_path / "capture.sock", **fields))
        return begun[-1]

    yield begin
    for each in begun:
        if each._thread.is_alive():
            each.stop()


@pytest.fixture
def counts() -> CaptureCounts:
    return CaptureCounts()


@pytest.fixture
def link(tmp_path: Path, counts: CaptureCounts) -> CaptureLink:
    return CaptureLink(tmp_path / "capture.sock", 100_000, counts)


async def test_records_come_to_be_files(
    start: Callable[..., Ended], link: CaptureLink, counts: CaptureCounts, tmp_path: Path
) -> None:
    start(rotate_secs=0.01)
    link.start()
    link.add(table())
    link.put(record(request_id="a"))
    link.put(record(request_id="b"))
    await until(lambda: counts.records == 2)
    assert counts.files >= 1 and counts.nbytes > 0 and not counts.failing
    await link.close()
    assert [row["request_id"] for row in rows(tmp_path / "lake")] == ["a", "b"]


async def test_what_is_there_at_the_end_is_written(
    start: Callable[..., Ended], link: CaptureLink, tmp_path: Path
) -> None:
    writer = start()
    link.start()
    link.add(table())
    await until(lambda: link._transport is not None)
    for _ in range(50):
        link.put(record())
    await link.close()
    writer.stop()
    assert len(rows(tmp_path / "lake")) == 50


async def test_records_wait_for_a_writer_that_is_not_there_yet(
    start: Callable[..., Ended], link: CaptureLink, tmp_path: Path
) -> None:
    link.start()
    link.add(table())
    link.put(record())
    assert link.queued_bytes > 0
    writer = start()
    await until(lambda: link.queued_bytes == 0)
    await link.close()
    writer.stop()
    assert len(rows(tmp_path / "lake")) == 1


async def test_only_so_many_wait(link: CaptureLink, counts: CaptureCounts) -> None:
    link.add(table())
    for _ in range(5000):
        link.put(record())
    assert 90_000 < link.queued_bytes <= 100_000
    assert counts.lost[Lost.QUEUE_FULL] == 5000 - len(link._waiting) + 1
    await link.close()
    link.put(record())
    assert counts.lost[Lost.QUEUE_FULL] == 5001 - len(link._waiting) + 1


async def test_a_writer_that_was_killed_is_followed_by_another(
    start: Callable[..., Ended], link: CaptureLink, counts: CaptureCounts, tmp_path: Path
) -> None:
    first = start()
    link.start()
    link.add(table())
    link.put(record(request_id="lost"))
    await until(lambda: bool(first.server._writer._open))
    await asyncio.to_thread(first.kill)
    await until(lambda: counts.lost[Lost.WRITER_ENDED] == 1)
    assert counts.failing
    second = start(rotate_secs=0.01)
    # it knows the table, which the one before was told of
    link.put(record(request_id="kept"))
    await until(lambda: counts.records == 1)
    assert not counts.failing
    await link.close()
    second.stop()
    assert [row["request_id"] for row in rows(tmp_path / "lake")] == ["kept"]


async def test_a_gateway_that_crashed_is_followed_by_another(
    start: Callable[..., Ended], tmp_path: Path
) -> None:
    writer = start()
    for name in ("a", "b"):
        link = CaptureLink(tmp_path / "capture.sock", 100_000, CaptureCounts())
        link.start()
        # the same number is another table
        link.add(table(1, version=ord(name)))
        link.put(record(request_id=name))
        await until(partial(_all_sent, link))
        assert link._transport is not None
        link._closed = asyncio.get_running_loop().create_future()
        link._transport.abort()
    await until(lambda: len(rows(tmp_path / "lake")) == 2)
    found = {row["request_id"]: row["model_version"] for row in rows(tmp_path / "lake")}
    assert found == {"a": ord("a"), "b": ord("b")}
    writer.stop()


def _all_sent(link: CaptureLink) -> bool:
    return link._transport is not None and link.queued_bytes == 0


def test_frames_come_in_any_pieces() -> None:
    sent: list[Table | Record] = [table(), record(), record(request_id="x" * 3000)]
    data = b"".join(frame(each) for each in sent)
    for size in (1, 7, 1000, len(data)):
        frames = Frames()
        found = [
            entry_of(each)
            for at in range(0, len(data), size)
            for each in frames.feed(data[at : at + size])
        ]
        assert found[0] == sent[0]
        assert [each.request_id for each in found if isinstance(each, Record)] == ["r", "x" * 3000]
