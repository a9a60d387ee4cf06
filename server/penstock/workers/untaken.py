"""Responses of decoupled models that wait to be taken by who asked for them, and when they are not waited with.

A model that sends faster than its caller takes has to wait. But a caller that waits for something else can take nothing
meanwhile, and what it waits for may need the very instance that waits for it: neither would ever go on. So while the
user of a stream waits for another call, the stream's responses are told to be taken, and kept. Only then: who is just
slow, or sends to a client that is, is waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Final, NamedTuple

NO_BATCH: Final = -1
"""Of who asks outside of any: in a thread of the model's own, say, which anybody may wait for."""


class User(NamedTuple):
    """Who uses a call."""

    batch: int
    """For which batch it is."""
    thread: int
    task: object
    """None where a thread itself waits."""

    def holds_up(self, other: User) -> bool:
        """Whether, while this one waits, the other may be unable to go on."""
        if self.batch == other.batch or NO_BATCH in (self.batch, other.batch):
            return True
        return self.thread == other.thread and (self.task is None or self.task is other.task)


def this_user(batch: int, *, in_task: bool = False) -> User:
    """Who calls this."""
    return User(batch, get_ident(), asyncio.current_task() if in_task else None)


class Untaken:
    """The responses of one call that may have many."""

    __slots__ = ("_tell", "_untold", "user")

    def __init__(self, user: User, tell: Callable[[], None]) -> None:
        """`tell` has the sender know of one response that it is taken."""
        self.user = user
        """Who took the last one."""
        self._tell = tell
        self._untold: deque[None] = deque()
        """One for each that came. Whoever gets it off here tells: any thread may try."""

    def came(self) -> None:
        """A response is there."""
        self._untold.append(None)

    def taken(self) -> None:
        """One was taken."""
        try:
            self._untold.popleft()
        except IndexError:
            # it was told before
            return
        self._tell()

    def let_go(self) -> None:
        """Nobody can take any for now."""
        for _ in range(len(self._untold)):
            self.taken()


class Streams:
    """Of all calls that may have many responses, and who waits. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._open: dict[int, Untaken] = {}
        self._waiting: dict[int, User] = {}
        """Call → who waits for it."""

    def open(self, number: int, untaken: Untaken) -> None:
        """A call begins."""
        self._open[number] = untaken

    def ended(self, number: int) -> None:
        """Its final response is there."""
        self._open.pop(number, None)

    def begin_wait(self, number: int, user: User) -> None:
        """Somebody waits for a response of that call."""
        self._waiting[number] = user
        if self._open:
            for other, untaken in list(self._open.items()):
                if other != number and user.holds_up(untaken.user):
                    untaken.let_go()

    def end_wait(self, number: int) -> None:
        """Nobody does any more."""
        self._waiting.pop(number, None)

    def came(self, number: int) -> None:
        """A response that is not the final one came."""
        untaken = self._open.get(number)
        if untaken is None:
            return
        untaken.came()
        if number not in self._waiting:
            waiting = list(self._waiting.values())
            if any(user.holds_up(untaken.user) for user in waiting):
                untaken.let_go()
