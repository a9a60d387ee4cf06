"""Gateway and agent over their socket: what is asked is answered, and either end may go and come back."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_registry import DeskBench, FakeRegistry
from fake_workers import until
from penstock.errors import Forbidden, LoadFailed, NotFound, Unavailable
from penstock.registry.counter import Counter
from penstock.registry.link import RegistryLink
from penstock.registry.messages import DeploymentStatus, FetchNote, RegistryState


class Line:
    """A desk behind its counter, and a gateway's link to it."""

    def __init__(self, desk: Callable[..., DeskBench], folder: Path) -> None:
        self._make = desk
        self.path = folder / "registry.sock"
        self.link = RegistryLink(self.path, timeout_s=60)
        self.states: list[RegistryState] = []
        self.link.on_state = self.states.append
        self.notes: list[FetchNote] = []
        self.link.on_note = self.notes.append
        self.bench: DeskBench
        self.counter: Counter
        self._server: asyncio.Server
        self._running: asyncio.Task[None]

    async def open(self) -> None:
        """An agent begins."""
        self.bench = self._make("own=models:/m@champion")
        self.counter = Counter(self.bench.desk, self.bench.view, "host:1")
        self._running = asyncio.ensure_future(self.counter.run())
        self._server = await asyncio.start_unix_server(self.counter.serve, self.path)
        self.bench.start()

    async def settle(self) -> None:
        await until(lambda: any(m.settled for m in self.link.state.models) and self.link.connected)

    async def end(self) -> None:
        """The agent ends."""
        self._server.close()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.counter.hang_up()
        await self.bench.close()


@pytest.fixture
async def line(desk: Callable[..., DeskBench], registry: FakeRegistry) -> AsyncIterator[Line]:
    for version in (1, 2):
        registry.add("m", version)
    registry.aliases["m"] = {"champion": 1}
    # pytest's own folders are too deep for Unix sockets
    with tempfile.TemporaryDirectory(prefix="pt-") as folder:
        line = Line(desk, Path(folder))
        await line.open()
        line.link.start()
        await line.settle()
        yield line
        await line.link.close()
        await line.end()


async def test_what_is_asked_is_answered(line: Line, registry: FakeRegistry) -> None:
    link = line.link
    assert (link.serves("own"), link.serves("m"), link.aliases("m")) == (True, False, {})
    assert link.aliases("own") == {"champion": 1}
    assert [note.outcome for note in line.notes] == ["done"]
    found = await link.resolve("own", "@champion")
    assert (found.name, found.version, found.run_id) == ("m", 1, "run1")
    assert (await link.lineage("own", 1)).version == 1
    with pytest.raises(NotFound, match="has no alias 'x'"):
        await link.resolve("own", "@x")
    with pytest.raises(NotFound, match="does not come from the registry"):
        await link.lineage("m", 1)
    await link.set_alias("own", "champion", 2)
    await until(lambda: link.aliases("own") == {"champion": 2})
    registry.refuse = Forbidden("the registry refuses")
    with pytest.raises(Forbidden):
        await link.set_alias("own", "champion", 1)
    with pytest.raises(LoadFailed):
        await link.set_alias("own", "latest", 1)
    registry.away = True
    with pytest.raises(Unavailable):
        await link.resolve("own", "@champion")


async def test_what_is_wanted_is_brought_and_held(line: Line) -> None:
    loaded: list[tuple[str, int]] = []

    async def load(model: str, version: int) -> None:
        loaded.append((model, version))
        assert any(v.version == version for v in line.link.state.models[0].versions)

    line.link.loaded = load
    await line.link.want("own", 2)
    assert loaded == [("own", 2)]
    assert line.link.holds("own", 2)
    line.link.release("own", 2)
    with pytest.raises(NotFound, match="has no version 9"):
        await line.link.want("own", 9)
    assert not line.link.holds("own", 9)
    assert line.bench.there("own") == [1, 2]
    line.link.unwant("own", 2)
    line.link.release("own", 2)
    await until(lambda: line.bench.there("own") == [1])


async def test_a_version_that_can_t_be_loaded_is_not_held(line: Line) -> None:
    async def fail(*_: Any) -> None:
        raise LoadFailed("no weights")

    line.link.loaded = fail
    with pytest.raises(LoadFailed):
        await line.link.want("own", 2)
    assert not line.link.holds("own", 2)


async def test_an_agent_that_is_killed_comes_back_and_nothing_is_lost(
    line: Line, registry: FakeRegistry
) -> None:
    link = line.link
    await link.want("own", 2)
    before = link.state.models
    await line.end()
    await until(lambda: not link.connected)
    # what it has said goes on
    assert link.state.models == before
    assert link.aliases("own") == {"champion": 1}
    for call in (link.resolve("own", "1"), link.set_alias("own", "a", 1), link.want("own", 1)):
        with pytest.raises(Unavailable, match="the registry agent is not there"):
            await call
    link.tag("own", 2, {"penstock.rollout": "begun"})
    link.tag("own", 2, {"penstock.rollout": "done"})
    link.deployed({"own": {1: status()}})
    link.look()
    line.states.clear()
    await line.open()
    await line.settle()
    await until(lambda: registry.tags.get(("m", 2, "penstock.rollout")) == ["done"])
    await until(lambda: ("m", 1, "penstock.deployment.host:1") in registry.tags)
    # it never said that there is nothing
    assert all(state.models for state in line.states)
    assert {v.version: v.wanted for v in link.state.models[0].versions} == {1: True, 2: True}
    await until(lambda: not link._tags)
    assert not link._look_due


async def test_who_waits_for_an_agent_that_is_killed_is_told(
    line: Line, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def wait(*_: Any) -> None:
        await never.wait()

    monkeypatch.setattr(line.bench.desk.answers, "resolve", wait)
    asking = asyncio.ensure_future(line.link.resolve("own", "1"))
    await until(lambda: bool(line.link._calls))
    line.counter.hang_up()
    with pytest.raises(Unavailable, match="the registry agent is not there"):
        await asking
    # the line comes back by itself
    await line.settle()
    never.set()


async def test_an_answer_is_not_waited_for_for_ever(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def wait(*_: Any) -> None:
        await never.wait()

    monkeypatch.setattr(line.bench.desk.answers, "resolve", wait)
    monkeypatch.setattr(line.link, "_answer_s", 0.01)
    with pytest.raises(Unavailable, match="did not answer within"):
        await line.link.resolve("own", "1")
    never.set()


async def test_tags_wait_for_a_registry_that_is_away(
    line: Line, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.registry.tag_writer.FIRST_RETRY_S", 0.01)
    registry.away = True
    line.link.tag("own", 1, {"a": "1"})
    asked = registry.questions
    await until(lambda: registry.questions > asked + 1)
    assert line.link._tags
    registry.away = False
    await until(lambda: not line.link._tags)
    assert registry.tags == {("m", 1, "a"): ["1"]}
    # what the registry does not take is not tried for ever
    line.link.tag("own", 9, {"a": "1"})
    await until(lambda: not line.link._tags)


def status(**changes: Any) -> DeploymentStatus:
    found = DeploymentStatus(state="READY", since="2026-01-01T00:00:00Z", share=100, healthy=True)
    return msgspec.structs.replace(found, **changes)


async def test_how_versions_are_served_is_written_to_them(
    line: Line, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.registry.tag_writer.CALM_S", 0.0)
    key = "m", 1, "penstock.deployment.host:1"
    line.link.deployed({"own": {1: status()}})
    await until(lambda: key in registry.tags)
    line.link.deployed({"own": {1: status()}, "unknown": {1: status()}})
    line.link.deployed({"own": {1: status(share=0)}})
    await until(lambda: len(registry.tags[key]) == 2)
    written = [msgspec.json.decode(value) for value in registry.tags[key]]
    assert written[0] == {
        "state": "READY",
        "since": "2026-01-01T00:00:00Z",
        "share": 100.0,
        "healthy": True,
    }
    line.link.deployed({"own": {}})
    await until(lambda: len(registry.tags[key]) == 3)
    assert msgspec.json.decode(registry.tags[key][2])["state"] == "STOPPED"
    line.link.deployed({"own": {1: status()}})
    await until(lambda: len(registry.tags[key]) == 4)
    await line.counter.say_stopped(5)
    assert msgspec.json.decode(registry.tags[key][4])["state"] == "STOPPED"


async def test_garbage_ends_the_line_alone(line: Line) -> None:
    for garbage in (b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\5", b"\0\0\0\2{}"):
        reader, writer = await asyncio.open_unix_connection(line.path)
        writer.write(garbage)
        writer.write_eof()
        await reader.read()
        writer.close()
    await line.settle()
    assert (await line.link.resolve("own", "1")).version == 1
