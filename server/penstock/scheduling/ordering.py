"""`preserve_ordering`: answers leave in the order in which their requests came, whichever instance was faster."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class InOrder(Generic[Request, Answer]):
    """Holds answers back until all earlier requests have theirs."""

    def __init__(self) -> None:
        self._expected: deque[Request] = deque()
        self._answers: dict[Request, Answer] = {}

    def expect(self, request: Request) -> None:
        """The request was accepted: its turn comes after all that were accepted before."""
        self._expected.append(request)

    def complete(self, request: Request, answer: Answer) -> Iterator[tuple[Request, Answer]]:
        """The request's answer is there. Yields all that may leave now, in order."""
        self._answers[request] = answer
        while self._expected and self._expected[0] in self._answers:
            ready = self._expected.popleft()
            yield ready, self._answers.pop(ready)
