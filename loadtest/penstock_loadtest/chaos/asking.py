"""One question from its sending to its answer: where clients, books and judgement meet."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from penstock_loadtest.chaos.books import Books, Kind, Outcome, Ticket
from penstock_loadtest.chaos.clients import Question
from penstock_loadtest.chaos.explain import explain
from penstock_loadtest.chaos.models import Target
from penstock_loadtest.chaos.questions import Generations, Reply, judge, make_question

NEVER: Final[Callable[[float], bool]] = lambda _: False  # noqa: E731


@dataclass(frozen=True, slots=True)
class Scene:
    """What all actors share."""

    seed: int
    http: str
    """Address of the server's HTTP port."""
    grpc: str
    books: Books
    stop: threading.Event
    """Set when no new question is to be asked."""
    generations: Generations = field(default_factory=Generations)
    tolerated: frozenset[Kind] = frozenset()
    """Faults of the front that are known."""

    def rng(self, name: str) -> random.Random:
        """A source of chance of its own for each actor: what one does changes nothing for the others."""
        return random.Random(f"{self.seed}/{name}")


@dataclass(frozen=True, slots=True)
class Role:
    """Who asks what, and which ends are explained by it."""

    name: str
    target: Target
    allowed: frozenset[Kind] = frozenset({Kind.OK})
    cut_since: Callable[[float], bool] = NEVER
    """Whether chaos has cut this role's connection since that time."""
    pause_s: float = 0.01
    """Mean time between an answer and the next question."""
    columns: int = 0
    """Of X; 0: by chance."""


class Asking:
    """A question that is under way. Exactly one of its last four methods is to be called, once."""

    def __init__(self, scene: Scene, role: Role, x: Question) -> None:
        self._scene = scene
        self._role = role
        self.x = x
        self._oldest = scene.generations.oldest if role.target.reloaded else 0
        self.ticket: Ticket = scene.books.open(role.name, role.target.name, role.allowed)

    @classmethod
    def by_chance(cls, scene: Scene, role: Role, rng: random.Random) -> Asking:
        """A random question of the role's."""
        return cls(scene, role, make_question(rng, role.target, role.columns))

    @property
    def id(self) -> str:
        """The request's id."""
        return self.ticket.id

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self._role.target.name

    def answered(self, reply: Reply) -> Outcome:
        """Judge the response and close the books on it."""
        newest = self._scene.generations.newest if self._role.target.reloaded else 0
        return self.ended(judge(self.x, self.id, reply, self._oldest, newest))

    def failed(self, error: BaseException) -> Outcome:
        """Find out what the error means and close the books on it."""
        outcome = explain(error)
        if outcome.kind is Kind.LINK_LOST and self._role.cut_since(self.ticket.sent_s):
            outcome = Outcome(Kind.CUT, outcome.detail)
        return self.ended(outcome)

    def left(self) -> Outcome:
        """The client went away without waiting for the answer."""
        return self.ended(Outcome(Kind.CANCELLED))

    def ended(self, outcome: Outcome) -> Outcome:
        """Close the books on it with an end that its caller knows better."""
        self._scene.books.close(self.ticket, outcome)
        return outcome
