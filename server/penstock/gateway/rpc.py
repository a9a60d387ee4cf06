"""What an RPC is to all that serves or carries one: messages as bytes, in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from penstock.access.rules import Rule
from penstock.access.session import AnySession
from penstock.errors import InvalidRequest

Unary = Callable[[bytes, AnySession], Awaitable[bytes]]
"""Checks what its rule leaves open, and answers a message."""
Stream = Callable[[AsyncIterator[bytes], AnySession], AsyncIterator[bytes]]
Answer = Callable[[Any, AnySession], Awaitable[Message]]
Rpc = tuple[str, str, Rule, Answer]
"""Method, its request's message, what it asks of its caller, and what answers it."""


def admit(rule: Rule | None, session: AnySession) -> None:
    """What can be said of a call before its message is here; None: there is no such RPC.

    Raises Unauthenticated, Forbidden.
    """
    if rule is None or rule.model:
        session.known()
    elif rule.verb is not None:
        session.check(rule.verb)


def parse(cls: type[Message], data: bytes) -> Message:
    """The message. Raises InvalidRequest when the bytes are none."""
    try:
        return cls.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"the message is not a {cls.DESCRIPTOR.name}: {error}") from error
