"""A worker's channel under many threads: who waits reads, and everybody gets what is theirs."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from descriptors import none_left
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.inbox import Inbox
from penstock.workers.message import MESSAGE_LIMIT_BYTES, Message
from penstock.workers.worker_commands import AttachSlab, Cancel, DetachSlab, Reset
from penstock.workers.worker_events import LoadRefused, WorkerEvent, decode_worker_event


class Bench:
    """An inbox, the gateway's end of its channel, and threads."""

    def __init__(self) -> None:
        self.gateway, self._theirs = Channel.pair()
        self.inbox = Inbox(self._theirs)
        self.cancelled: list[int] = []
        self.inbox.on(Cancel, lambda message: self.cancelled.append(message.request))
        self.threads = ThreadPoolExecutor(16)

    def cancel(self, request: int) -> None:
        """The gateway says it."""
        self.gateway.send(Cancel(1, request))

    def command(self, number: int) -> None:
        """The gateway says something for the main loop."""
        self.gateway.send(DetachSlab(number))

    def take(self) -> int:
        """The main loop's next command."""
        command, _ = self.inbox.take()
        assert isinstance(command, DetachSlab)
        return command.slab

    def waiting(self, request: int) -> Future[None]:
        """A thread that waits until the request is cancelled, and does so already."""
        begun = threading.Event()

        def ready() -> bool:
            begun.set()
            return request in self.cancelled

        future = self.threads.submit(self.inbox.wait, ready)
        assert begun.wait(60)
        return future

    def sent(self) -> WorkerEvent:
        """What the gateway hears next."""
        event: WorkerEvent = decode_worker_event(self.gateway.receive()[0])
        return event

    def close(self) -> None:
        self.inbox.close()
        self.threads.shutdown()
        self.gateway.close()
        self._theirs.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with none_left():
        made = Bench()
        yield made
        made.close()
        del made
        gc.collect()


def test_commands_come_in_order_and_messages_at_once(bench: Bench) -> None:
    bench.command(1)
    bench.cancel(7)
    bench.command(2)
    bench.inbox.pump()
    assert bench.cancelled == [7]
    assert [bench.take(), bench.take()] == [1, 2]


def test_a_pump_does_not_wait(bench: Bench) -> None:
    bench.inbox.pump()
    assert bench.cancelled == []


def test_who_waits_reads_for_all(bench: Bench) -> None:
    """While the main loop is busy elsewhere, one of the waiting threads reads, then another."""
    waiting = [bench.waiting(n) for n in range(5)]
    bench.command(1)
    for n in (3, 0, 4, 1, 2):
        bench.cancel(n)
        waiting[n].result(60)
    assert bench.take() == 1


def test_the_main_loop_reads_for_those_who_wait(bench: Bench) -> None:
    taken = bench.threads.submit(bench.take)
    waiting = [bench.waiting(n) for n in range(3)]
    for n in range(3):
        bench.cancel(n)
        waiting[n].result(60)
    assert not taken.done()
    # and one who waits reads for the main loop, which comes back when somebody reads already
    bench.command(5)
    assert taken.result(60) == 5
    last = bench.waiting(9)
    taken = bench.threads.submit(bench.take)
    bench.command(6)
    assert taken.result(60) == 6
    bench.cancel(9)
    last.result(60)


def test_a_pump_while_another_thread_reads_leaves_it_to_that_one(bench: Bench) -> None:
    waiting = bench.waiting(1)
    bench.inbox.pump()
    bench.cancel(1)
    waiting.result(60)
    assert bench.cancelled == [1]


def test_an_early_message_is_noted_at_once_and_still_a_command(bench: Bench) -> None:
    noted: list[Reset] = []
    bench.inbox.on_early(Reset, noted.append)
    bench.command(1)
    bench.gateway.send(Reset(9))
    bench.inbox.pump()
    assert noted == [Reset(9)]
    assert bench.take() == 1
    assert bench.inbox.take() == (Reset(9), [])
    assert len(noted) == 1


def test_descriptors_come_with_their_command(bench: Bench) -> None:
    memfd = os.memfd_create("test")
    bench.gateway.send(AttachSlab(3), (memfd,))
    bench.inbox.pump()
    command, (descriptor,) = bench.inbox.take()
    assert command == AttachSlab(3)
    assert os.fstat(descriptor).st_ino == os.fstat(memfd).st_ino
    # the next one nobody takes
    bench.gateway.send(AttachSlab(4), (memfd,))
    bench.inbox.pump()
    os.close(descriptor)
    os.close(memfd)


def test_all_who_wait_hear_of_the_end(bench: Bench) -> None:
    waiting = [bench.waiting(n) for n in range(3)]
    bench.gateway.close()
    for each in waiting:
        with pytest.raises(ChannelClosed):
            each.result(60)
    bench.inbox.pump()
    with pytest.raises(ChannelClosed):
        bench.take()


def test_all_who_wait_hear_of_a_close(bench: Bench) -> None:
    waiting = [bench.waiting(n) for n in range(3)]
    bench.inbox.close()
    for each in waiting:
        with pytest.raises(ChannelClosed):
            each.result(60)
    with pytest.raises(ChannelClosed):
        bench.inbox.send(LoadRefused("late"))


def test_what_holds_already_needs_nobody(bench: Bench) -> None:
    bench.inbox.close()
    bench.inbox.wait(lambda: True)


def test_messages_of_many_threads_come_whole(bench: Bench) -> None:
    large = "x" * (MESSAGE_LIMIT_BYTES + 1)

    def say(thread: int) -> None:
        for n in range(50):
            bench.inbox.send(LoadRefused(f"{thread} {n} {large if n % 10 == 0 else ''}"))

    saying = [bench.threads.submit(say, thread) for thread in range(8)]
    heard: dict[int, list[int]] = {thread: [] for thread in range(8)}
    for _ in range(8 * 50):
        event = bench.sent()
        assert isinstance(event, LoadRefused)
        thread, n = map(int, event.reason.split()[:2])
        heard[thread].append(n)
    for each in saying:
        each.result(60)
    assert all(numbers == list(range(50)) for numbers in heard.values())


def test_a_finalizer_in_the_middle_of_a_send() -> None:
    """What it posts goes out after the message that is being sent, by whoever sends."""

    class Interrupted(Channel):
        def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
            if message == LoadRefused("first"):
                inbox.post(LoadRefused("posted"))
            super().send(message, descriptors)

    gateway, theirs = Interrupted.pair()
    inbox = Inbox(theirs)
    inbox.send(LoadRefused("first"))
    inbox.post(LoadRefused("last"))
    heard = [decode_worker_event(gateway.receive()[0]) for _ in range(3)]
    assert heard == [LoadRefused(text) for text in ("first", "posted", "last")]
    gateway.close()
    theirs.close()


def test_a_crowd(bench: Bench) -> None:
    """Commands for the main loop, and as many waiting threads as there are messages, all mixed up."""
    taken = bench.threads.submit(lambda: [bench.take() for _ in range(200)])

    def wait_for_some(first: int) -> None:
        for n in range(first, 300, 6):
            bench.inbox.pump()
            bench.inbox.wait(lambda n=n: n in bench.cancelled)  # type: ignore[misc]

    waiting = [bench.threads.submit(wait_for_some, first) for first in range(6)]
    for n in range(300):
        bench.cancel(n)
        if n < 200:
            bench.command(n)
    for each in waiting:
        each.result(20)
    assert taken.result(20) == list(range(200))
    assert bench.cancelled == list(range(300))
