"""ASGI's own types, as far as the gateway uses them (https://asgi.readthedocs.io), and a trap of our bridge's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
SendNow = Callable[[Message], object]
"""A `send` that acts when it is called, as the bridge's does: it can be used outside of the handler's task."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def forget_frames(error: OSError) -> None:
    """The bridge raises one shared exception whenever the client is gone: its traceback would keep every frame alive
    for ever (D3)."""
    error.__traceback__ = None
    error.__context__ = None
