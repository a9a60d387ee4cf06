"""The gateway's end of the control socket; the test is the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fake_workers import settle
from penstock.errors import LoadFailed
from penstock.workers import messages
from penstock.workers.channel import Channel
from penstock.workers.control import SUPERVISOR_GONE, ControlLink, WorkerProcess


class Supervisor:
    """The other end."""

    def __init__(self) -> None:
        theirs, self.channel = Channel.pair()
        self.channel.setblocking(False)
        self.link = ControlLink(theirs)
        self.workers: list[Channel] = []

    def heard(self) -> messages.GatewayMessage:
        """The next message of the gateway."""
        message: messages.GatewayMessage = messages.decode_gateway_message(
            self.channel.receive()[0]
        )
        return message

    async def say(self, message: messages.SupervisorMessage, *descriptors: int) -> None:
        self.channel.send(message, descriptors)
        await settle()

    async def start(self, pid: int = 77) -> WorkerProcess:
        """A started worker."""
        starting = asyncio.ensure_future(self.link.start_worker("m/1#0", {"A": "b"}))
        await settle()
        command = self.heard()
        assert isinstance(command, messages.StartWorker)
        await self.grant(command.worker_id, pid)
        return await starting

    async def grant(self, worker_id: int, pid: int = 77) -> None:
        ours, theirs = Channel.pair()
        self.workers.append(ours)
        await self.say(messages.WorkerStarted(worker_id, pid), theirs.fileno())
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
    assert supervisor.heard() == messages.StartWorker(1, "m/1#0", {"A": "b"})
    await supervisor.grant(1, pid=5)
    worker = await starting
    assert (worker.worker_id, worker.pid, worker.exited.done()) == (1, 5, False)
    worker.channel.send(messages.Ready(b"", 0))
    data, _ = supervisor.workers[0].receive()
    assert messages.decode_worker_event(data) == messages.Ready(b"", 0)
    worker.channel.close()


async def test_ids_are_never_used_twice(supervisor: Supervisor) -> None:
    workers = [await supervisor.start() for _ in range(3)]
    assert [worker.worker_id for worker in workers] == [1, 2, 3]
    for worker in workers:
        worker.channel.close()


async def test_a_worker_that_can_not_be_started(supervisor: Supervisor) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    await supervisor.say(messages.WorkerExited(1, 127, "could not be started: No such file"))
    with pytest.raises(LoadFailed, match="no worker process could be started: could not be"):
        await starting


async def test_the_end_of_a_worker_is_told_once(supervisor: Supervisor) -> None:
    worker = await supervisor.start()
    await supervisor.say(messages.WorkerExited(1, -9, "killed by SIGKILL"))
    await supervisor.say(messages.WorkerExited(1, 0, "again"))
    assert worker.exited.result() == "killed by SIGKILL"
    supervisor.link.stop_worker(worker, 1)
    with pytest.raises(BlockingIOError):
        supervisor.heard()
    worker.channel.close()


async def test_a_worker_is_stopped(supervisor: Supervisor) -> None:
    worker = await supervisor.start()
    supervisor.link.stop_worker(worker, 2.5)
    assert supervisor.heard() == messages.StopWorker(1, 2.5)
    worker.channel.close()


async def test_a_worker_nobody_waits_for_any_more_is_stopped_at_once(
    supervisor: Supervisor,
) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    starting.cancel()
    await settle()
    assert isinstance(supervisor.heard(), messages.StartWorker)
    await supervisor.grant(1)
    assert supervisor.heard() == messages.StopWorker(1, 0)
    await supervisor.say(messages.WorkerExited(1, 0, "ended"))


async def test_a_start_that_fails_after_nobody_waits(supervisor: Supervisor) -> None:
    starting = asyncio.ensure_future(supervisor.link.start_worker("m", {}))
    await settle()
    starting.cancel()
    await supervisor.say(messages.WorkerExited(1, 127, "no"))
    assert starting.cancelled()


async def test_drain_and_shutdown_are_passed_on(supervisor: Supervisor) -> None:
    told: list[str] = []
    supervisor.link.on_drain = lambda: told.append("drain")
    supervisor.link.on_shutdown = lambda: told.append("shutdown")
    await supervisor.say(messages.Drain())
    await supervisor.say(messages.Shutdown())
    assert told == ["drain", "shutdown"]


async def test_reports_go_out(supervisor: Supervisor) -> None:
    line = messages.ModelReport("m", "1", "READY", "", "python", 1)
    report = messages.Report((line,) * 2000, ("statistics",))
    supervisor.link.report(report)
    supervisor.link.fail("the disk is full")
    assert supervisor.heard() == report
    assert supervisor.heard() == messages.GatewayFailed("the disk is full")


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
    supervisor.link.report(messages.Report((), ()))
    supervisor.link.stop_worker(worker, 1)
    supervisor.link.close()
    assert told == ["shutdown"]
    worker.channel.close()


async def test_a_loss_that_only_sending_notices(supervisor: Supervisor) -> None:
    supervisor.channel.close()
    with pytest.raises(LoadFailed, match=SUPERVISOR_GONE):
        await supervisor.link.start_worker("m", {})
