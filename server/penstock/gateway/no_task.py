"""What stands for a task where none is needed: the bridge asks the loop for one for every request.

A task begins in the loop's next turn, is kept in a set of all tasks, and tells of its end in a turn of its own. That is
an eighth of what a small inference takes of the loop; its way in has but one place to wait at, which a callback can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from penstock.gateway.asgi import Message, Receive


class NoTask:
    """Has no exception to tell of: who returns it answers the request whatever happens."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Of use only to who wants to hear of exceptions."""


NO_TASK: Final = NoTask()


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """For `loop.set_task_factory`: a task of the coroutine, unless it is none."""
    if coroutine is NO_TASK:
        return NO_TASK
    return asyncio.Task(coroutine, loop=loop, **options)


class Again:
    """A `receive` whose first message was asked for already."""

    def __init__(self, first: Awaitable[Message], receive: Receive) -> None:
        self._first: Awaitable[Message] | None = first
        self._receive = receive

    def __call__(self) -> Awaitable[Message]:
        """The next message."""
        first, self._first = self._first, None
        return self._receive() if first is None else first
