"""The gateway's end of the control socket; the test is the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from descriptors import none_left
from fake_workers import settle
from penstock.errors import LoadFailed
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.control import (
    SUPERVISOR_GONE,
    UNCLAIMED_GRACE_S,
    ControlLink,
    WorkerProcess,
)
from penstock.workers.supervisor_messages import (
    Drain,
    GatewayFailed,
    GatewayMessage,
    Inheritance,
    ModelReport,
    Report,
    Shutdown,
    StartWorker,
    StopWorker,
    SupervisorMessage,
    WorkerExited,
    WorkerKept,
    WorkerLoaded,
    WorkerStarted,
    decode_gateway_message,
)
from penstock.workers.worker_commands import Reset, decode_worker_command
from penstock.workers.worker_events import Ready, decode_worker_event


class Supervisor:
    """The other end."""

    def __init__(self) -> None:
        theirs, self.channel = Channel.pair()
        self.channel.setblocking(False)
        self.link = ControlLink(theirs)
        self.workers: list[Channel] = []
        self.channel.send(Inheritance(1, None))

    def heard(self) -> GatewayMessage:
        """The next message of the gateway."""
        message: GatewayMessage = decode_gateway_message(self.channel.receive()[0])
        return message

    async def say(self, message: SupervisorMessage, *descriptors: int) -> None:
        self.channel.send(message, descriptors)
        await settle()

    async def start(self, pid: int = 77) -> WorkerProcess:
        """A started worker."""
        starting = asyncio.ensure_future(self.link.start_worker("m/1#0", {"A": "b"}))
        await settle()
        command = self.heard()
        assert isinstance(command, StartWorker)
        await self.grant(command.worker_id, pid)
        return await starting

    async def grant(self, worker_id: int, pid: int = 77) -> None:
        ours, theirs = Channel.pair()
        self.workers.append(ours)
        await self.say(WorkerStarted(worker_id, pid), theirs.fileno())
        theirs.close()


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    made = Supervisor()
    yield made
    made.link.close()
    for channel in (made.channel, *made.workers):
        channel.close()


async def test_a_worker_is_started_and_its_socket_works(supervisor: Supervisor) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m/1#0", {"A": "b"}))
    await settle()
    assert supervisor.heard() == StartWorker(1, "m/1#0", {"A": "b"})
    await supervisor.grant(1, pid=5)
    worker = await starting
    assert (worker.worker_id, worker.pid, worker.exited.done()) == (1, 5, False)
    worker.channel.send(Ready(b"", 0, 0))
    data, _ = supervisor.workers[0].receive()
    assert decode_worker_event(data) == Ready(b"", 0, 0)
    worker.channel.close()


async def test_ids_are_never_used_twice(supervisor: Supervisor) -> None:
    workers = [await supervisor.start() for _ in range(3)]
    assert [worker.worker_id for worker in workers] == [1, 2, 3]
    for worker in workers:
        worker.channel.close()


async def test_a_worker_that_can_not_be_started(supervisor: Supervisor) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    await supervisor.say(WorkerExited(1, 127, "could not be started: No such file"))
    with pytest.raises(LoadFailed, match="no worker process could be started: could not be"):
        await starting


async def test_the_end_of_a_worker_is_told_once(supervisor: Supervisor) -> None:
    worker = await supervisor.start()
    await supervisor.say(WorkerExited(1, -9, "killed by SIGKILL"))
    await supervisor.say(WorkerExited(1, 0, "again"))
    assert worker.exited.result() == "killed by SIGKILL"
    supervisor.link.stop_worker(worker, 1)
    with pytest.raises(BlockingIOError):
        supervisor.heard()
    worker.channel.close()


async def test_a_worker_is_stopped(supervisor: Supervisor) -> None:
    worker = await supervisor.start()
    supervisor.link.stop_worker(worker, 2.5)
    assert supervisor.heard() == StopWorker(1, 2.5)
    worker.channel.close()


async def test_a_worker_nobody_waits_for_any_more_is_stopped_at_once(
    supervisor: Supervisor,
) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    starting.cancel()
    await settle()
    assert isinstance(supervisor.heard(), StartWorker)
    await supervisor.grant(1)
    assert supervisor.heard() == StopWorker(1, 0)
    await supervisor.say(WorkerExited(1, 0, "ended"))


async def test_a_worker_that_comes_when_nobody_waits_any_more_is_stopped(
    supervisor: Supervisor,
) -> None:
    """In the same turn of the loop: the cancellation counts, and the worker is nobody's."""
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    assert isinstance(supervisor.heard(), StartWorker)
    with none_left():
        ours, theirs = Channel.pair()
        supervisor.channel.send(WorkerStarted(1, 77), (theirs.fileno(),))
        theirs.close()
        supervisor.link._read()
        starting.cancel()
        await settle()
        assert starting.cancelled()
        ours.close()
    assert supervisor.heard() == StopWorker(1, 0)


async def test_a_start_that_fails_after_nobody_waits(supervisor: Supervisor) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    starting.cancel()
    await supervisor.say(WorkerExited(1, 127, "no"))
    assert starting.cancelled()


async def test_drain_and_shutdown_are_passed_on(supervisor: Supervisor) -> None:
    told: list[str] = []
    supervisor.link.on_drain = lambda: told.append("drain")
    supervisor.link.on_shutdown = lambda: told.append("shutdown")
    await supervisor.say(Drain())
    await supervisor.say(Shutdown())
    assert told == ["drain", "shutdown"]


async def test_reports_go_out(supervisor: Supervisor) -> None:
    line = ModelReport("m", "1", "READY", "", "python", 1)
    report = Report((line,) * 2000, ("statistics",), {"m": True})
    supervisor.link.report(report)
    supervisor.link.fail("the disk is full")
    assert supervisor.heard() == report
    assert supervisor.heard() == GatewayFailed("the disk is full")


async def test_a_message_that_can_not_be_encoded_is_in_nobodys_way(supervisor: Supervisor) -> None:
    with pytest.raises(UnicodeEncodeError):
        supervisor.link.fail("\ud800")
    supervisor.link.fail("the disk is full")
    assert supervisor.heard() == GatewayFailed("the disk is full")


async def test_without_its_supervisor_a_gateway_ends_and_asks_nothing_more(
    supervisor: Supervisor,
) -> None:
    told: list[str] = []
    supervisor.link.on_shutdown = lambda: told.append("shutdown")
    worker = await supervisor.start()
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    supervisor.channel.close()
    await settle()
    assert told == ["shutdown"]
    assert worker.exited.result() == SUPERVISOR_GONE
    with pytest.raises(LoadFailed, match=SUPERVISOR_GONE):
        await starting
    with pytest.raises(LoadFailed, match=SUPERVISOR_GONE):
        await supervisor.link.start_worker("m", {})
    supervisor.link.report(Report((), (), {}))
    supervisor.link.stop_worker(worker, 1)
    supervisor.link.close()
    assert told == ["shutdown"]
    worker.channel.close()


async def test_a_loss_that_only_sending_notices(supervisor: Supervisor) -> None:
    supervisor.channel.close()
    with pytest.raises(LoadFailed, match=SUPERVISOR_GONE):
        await supervisor.link.start_worker("m", {})


# ── what an earlier gateway left ────────────────────────────────────────────────────────────────────────────────────


class Heir(Supervisor):
    """The supervisor of a gateway that is not the first."""

    async def keep(self, worker_id: int, name: str = "m/1#0", key: bytes = b"key") -> None:
        """Hand a loaded worker over."""
        ours, theirs = Channel.pair()
        self.workers.append(ours)
        kept = WorkerKept(worker_id, 70 + worker_id, name, key)
        await self.say(kept, theirs.fileno())
        theirs.close()

    def sees_end(self, number: int) -> bool:
        """Whether nobody holds the gateway's end of that worker's channel any more."""
        self.workers[number].setblocking(False)
        try:
            self.workers[number].receive()
        except BlockingIOError:
            return False
        except ChannelClosed:
            return True
        raise AssertionError("the gateway said something")


@pytest.fixture
async def heir() -> AsyncIterator[Heir]:
    with none_left():
        made = Heir()
        yield made
        made.link.close()
        for channel in (made.channel, *made.workers):
            channel.close()


async def test_a_worker_is_claimed_once_by_what_it_has_loaded(heir: Heir) -> None:
    await heir.keep(3)
    assert heir.link.has_unclaimed("m/1#") and not heir.link.has_unclaimed("m/10#")
    worker = heir.link.claim("m/1#0", b"key")
    assert worker is not None
    assert (worker.worker_id, worker.pid, worker.exited.done()) == (3, 73, False)
    assert heir.link.claim("m/1#0", b"key") is None
    worker.channel.send(Reset(5))
    data, _ = heir.workers[0].receive()
    assert decode_worker_command(data) == Reset(5)
    heir.link.end_unclaimed()
    await heir.say(WorkerExited(3, -9, "killed by SIGKILL"))
    assert worker.exited.result() == "killed by SIGKILL"
    worker.channel.close()


async def test_a_worker_with_something_else_loaded_ends(heir: Heir) -> None:
    await heir.keep(3, key=b"old")
    await heir.keep(4, name="m/1#1", key=b"new")
    assert heir.link.claim("m/1#0", b"new") is None
    assert heir.heard() == StopWorker(3, UNCLAIMED_GRACE_S)
    assert (heir.sees_end(0), heir.sees_end(1)) == (True, False)


async def test_the_newest_of_two_is_taken(heir: Heir) -> None:
    """A load anew had begun."""
    for worker_id in (3, 9, 10):
        await heir.keep(worker_id)
    worker = heir.link.claim("m/1#0", b"key")
    assert worker is not None and worker.worker_id == 10
    assert [heir.heard(), heir.heard()] == [
        StopWorker(3, UNCLAIMED_GRACE_S),
        StopWorker(9, UNCLAIMED_GRACE_S),
    ]
    worker.channel.close()


async def test_what_nobody_claims_ends(heir: Heir) -> None:
    await heir.keep(3)
    await heir.keep(4)
    await heir.say(WorkerExited(3, -9, "killed by SIGKILL"))
    assert heir.sees_end(0)
    heir.link.end_unclaimed()
    assert heir.heard() == StopWorker(4, UNCLAIMED_GRACE_S)
    assert heir.sees_end(1)
    assert not heir.link.has_unclaimed("")
    with pytest.raises(BlockingIOError):
        heir.heard()


async def test_ids_go_on_where_they_ended(heir: Heir) -> None:
    """And nothing is started before it is known where."""
    theirs, ours = Channel.pair()
    ours.setblocking(False)
    link = ControlLink(theirs)
    starting = asyncio.ensure_future(link.start_worker("m/1#0", {}))
    await settle()
    with pytest.raises(BlockingIOError):
        ours.receive()
    ours.send(Inheritance(12, {"m": True, "n": False}))
    await settle()
    assert await link.inherited() == {"m": True, "n": False}
    assert decode_gateway_message(ours.receive()[0]) == StartWorker(12, "m/1#0", {})
    starting.cancel()
    link.close()
    ours.close()


async def test_what_is_loaded_is_told(heir: Heir) -> None:
    worker = await heir.start()
    heir.link.loaded(worker, b"key")
    assert heir.heard() == WorkerLoaded(worker.worker_id, b"key")
    worker.channel.close()


async def test_without_its_supervisor_nothing_is_inherited() -> None:
    theirs, ours = Channel.pair()
    link = ControlLink(theirs)
    ours.close()
    await settle()
    with pytest.raises(LoadFailed, match=SUPERVISOR_GONE):
        await link.inherited()
