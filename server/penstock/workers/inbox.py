"""The worker's channel as all threads of its process share it: commands for its main loop, messages for what runs.

While a model runs, the gateway may say something of its requests (they are cancelled, their clients took a response),
and threads of the model wait for that. There is no thread that reads for the others: who waits reads, one at a time,
and hands out what comes. So the main loop of a worker whose model doesn't talk reads its own commands, as ever.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock
from typing import Any, Final

from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.message import Message
from penstock.workers.worker_commands import WorkerCommand, decode_worker_command

Received = tuple[WorkerCommand, list[int]]
"""A command and the descriptors that came with it."""

Handler = Callable[[Any], None]


class Inbox:
    """Every method may be called from any thread, but `take` is the main loop's.

    Raises ChannelClosed when nobody has the other end any more, or `close` was called.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._handlers: dict[type[Message], Handler] = {}
        self._early: dict[type[Message], list[Handler]] = {}
        self._commands: deque[Received] = deque()
        self._lock: Final = Lock()
        """Guards what is read and who reads."""
        self._turn: Final = Condition(self._lock)
        self._reading = False
        """Some thread waits in `receive`, without the lock."""
        self._waiting = 0
        """Threads that wait for that one to hand out what it reads."""
        self._closed = False
        self._sending: Final = Lock()
        self._posted: deque[Message] = deque()

    def on(self, kind: type[Message], handler: Handler) -> None:
        """`handler` gets each message of that type as soon as any thread has read it. It runs on that thread and under
        a lock: it only notes what it is told, and calls nothing of the inbox but `send`."""
        self._handlers[kind] = handler

    def on_early(self, kind: type[Message], handler: Handler) -> None:
        """As `on`, but the message is a command for the main loop too, which gets it in its turn."""
        self._early.setdefault(kind, []).append(handler)

    def take(self) -> Received:
        """The next command for the main loop, in the order in which they came."""
        with self._lock:
            while not self._commands:
                self._next()
            return self._commands.popleft()

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until it holds, which only what a handler notes can bring about. It is asked under the handlers' lock."""
        with self._lock:
            while not ready():
                self._next()

    def pump(self) -> None:
        """Hand out what is there, without waiting. Where another thread reads, or is about to, it does that."""
        if self._closed or not self._lock.acquire(blocking=False):
            return
        try:
            while not (self._reading or self._closed):
                self._deliver(*self._channel.receive(socket.MSG_DONTWAIT))
                self._turn.notify_all()
        except BlockingIOError:
            pass
        except ChannelClosed:
            self._closed = True
            self._turn.notify_all()
        finally:
            self._lock.release()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message."""
        with self._sending:
            self._channel.send(message, descriptors)
        if self._posted:
            self._send_posted()

    def post(self, message: Message) -> None:
        """As `send`, for finalizers: a garbage collection may begin in the middle of a `send`, on the same thread. Who
        is in the middle of it sends this next."""
        self._posted.append(message)
        self._send_posted()

    def close(self) -> None:
        """Nothing is read or sent any more: all who wait get ChannelClosed."""
        self._closed = True
        self._channel.shutdown()
        with self._lock:
            self._turn.notify_all()
            while self._commands:
                for descriptor in self._commands.popleft()[1]:
                    os.close(descriptor)

    def _next(self) -> None:
        """Until a message was handed out, by this thread or the one that reads. Called, and returns, with the lock."""
        if self._closed:
            raise ChannelClosed
        if self._reading:
            self._waiting += 1
            try:
                self._turn.wait()
            finally:
                self._waiting -= 1
            return
        self._reading = True
        received = None
        try:
            # in here, for a signal may come right after it
            self._lock.release()
            received = self._channel.receive()
        except ChannelClosed:
            self._closed = True
        finally:
            self._lock.acquire()
            self._reading = False
            # also the one that is to read next
            if self._waiting:
                self._turn.notify_all()
        if received is not None:
            self._deliver(*received)

    def _deliver(self, data: bytes, descriptors: list[int]) -> None:
        message = decode_worker_command(data)
        kind = type(message)
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(message)
            return
        for early in self._early.get(kind, ()):
            early(message)
        self._commands.append((message, descriptors))

    def _send_posted(self) -> None:
        while self._posted and self._sending.acquire(blocking=False):
            try:
                while self._posted:
                    self._channel.send(self._posted.popleft())
            finally:
                self._sending.release()
