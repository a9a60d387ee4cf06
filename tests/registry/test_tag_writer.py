"""Tags are written sooner or later, the last value of each, and those of deployments not too often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fake_workers import until
from penstock.errors import NotFound, PenstockError, Unavailable
from penstock.registry import tag_writer
from penstock.registry.tag_writer import TagWriter


class Desk:
    def __init__(self) -> None:
        self.written: list[tuple[str, int, str, str]] = []
        self.fails: list[PenstockError] = []
        self.asked = 0

    async def write(self, model: str, version: int, name: str, value: str) -> None:
        self.asked += 1
        if self.fails:
            raise self.fails.pop(0)
        self.written.append((model, version, name, value))


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def writer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TagWriter]:
    monkeypatch.setattr(tag_writer, "FIRST_RETRY_S", 0.001)
    writer = TagWriter(desk.write)
    running = asyncio.ensure_future(writer.run())
    yield writer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_tags_are_written_and_their_writers_told(writer: TagWriter, desk: Desk) -> None:
    desk.fails = [Unavailable("away"), Unavailable("away")]
    await asyncio.gather(*writer.put("m", 1, {"a": "1", "b": "2"}))
    assert sorted(desk.written) == [("m", 1, "a", "1"), ("m", 1, "b", "2")]
    assert writer.count == 2


async def test_of_several_values_the_last_holds(writer: TagWriter, desk: Desk) -> None:
    first = writer.put("m", 1, {"a": "1"})
    last = writer.put("m", 1, {"a": "2"})
    await asyncio.gather(*first, *last)
    assert desk.written == [("m", 1, "a", "2")]


async def test_a_value_that_comes_while_one_is_written_is_written_too(desk: Desk) -> None:
    gate = asyncio.Event()

    async def slow(*what: str | int) -> None:
        await gate.wait()
        await desk.write(*what)  # type: ignore[arg-type]

    writer = TagWriter(slow)
    running = asyncio.ensure_future(writer.run())
    first = writer.put("m", 1, {"a": "1"})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    last = writer.put("m", 1, {"a": "2"})
    gate.set()
    await asyncio.gather(*first, *last)
    assert [value for *_, value in desk.written] == ["1", "2"]
    running.cancel()


async def test_what_never_will_be_written_is_said_and_forgotten(
    writer: TagWriter, desk: Desk
) -> None:
    desk.fails = [NotFound("no version 1")]
    (done,) = writer.put("m", 1, {"a": "1"})
    with pytest.raises(NotFound):
        await done
    await asyncio.gather(*writer.put("m", 2, {"a": "1"}))
    assert desk.written == [("m", 2, "a", "1")]


async def test_how_versions_are_served_is_written_calmly(
    writer: TagWriter, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("1", "1", "1"):
        writer.put_calmly("m", 1, "d", value)
        await asyncio.sleep(0.01)
    assert desk.written == [("m", 1, "d", "1")]
    writer.put_calmly("m", 1, "d", "2")
    writer.put_calmly("m", 1, "d", "3")
    await asyncio.sleep(0.01)
    assert desk.asked == 1
    # at the end all is said
    await writer.flush(5)
    assert desk.written[1:] == [("m", 1, "d", "3")]
    monkeypatch.setattr(tag_writer, "CALM_S", 0.01)
    writer.put_calmly("m", 1, "d", "4")
    await until(lambda: len(desk.written) == 3)


async def test_the_end_does_not_wait_for_a_registry_that_is_away(desk: Desk) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    writer = TagWriter(never)
    writer.put("m", 1, {"a": "1"})
    await writer.flush(0.01)
    writer = TagWriter(desk.write)
    writer.put("m", 1, {"a": "1", "b": "2"})
    desk.fails = [Unavailable("away")]
    await writer.flush(5)
    assert desk.asked == 1
