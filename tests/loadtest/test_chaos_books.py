"""The clients' books: every way in which an answer can be missing, double, wrong or unexplained is found."""

from __future__ import annotations

import pytest

from penstock_loadtest.chaos.books import PROBLEMS_KEPT, Books, Kind, Outcome

OK = Outcome(Kind.OK)
ONLY_OK = frozenset({Kind.OK})


class Clock:
    """A clock that is set by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def books(clock: Clock) -> Books:
    return Books(clock)


def test_one_right_answer_each_balances(books: Books) -> None:
    tickets = [books.open("a", "m", ONLY_OK) for _ in range(3)]
    assert len({ticket.id for ticket in tickets}) == 3
    assert books.balance().open == 3
    for ticket in tickets:
        books.close(ticket, OK)
    balance = books.balance()
    assert (balance.open, balance.problem_count, balance.problems) == (0, 0, ())
    assert balance.counts == {("a", "m", Kind.OK): 3}


def test_a_lost_answer_is_found(books: Books, clock: Clock) -> None:
    lost, answered = books.open("a", "m", ONLY_OK), books.open("a", "m", ONLY_OK)
    books.close(answered, OK)
    clock.now_s += 60
    books.close_missing()
    balance = books.balance()
    (problem,) = balance.problems
    assert (problem.ticket, problem.kind, problem.took_s) == (lost.id, Kind.MISSING, 60)
    assert balance.open == 0


def test_a_double_answer_is_found(books: Books) -> None:
    ticket = books.open("a", "m", ONLY_OK)
    books.close(ticket, OK)
    books.close(ticket, OK)
    balance = books.balance()
    (problem,) = balance.problems
    assert problem.kind is Kind.DOUBLE
    assert "first: ok; then: ok" in problem.detail
    assert balance.counts == {("a", "m", Kind.OK): 1, ("a", "m", Kind.DOUBLE): 1}


def test_an_answer_that_comes_after_the_end_is_a_double_one(books: Books) -> None:
    ticket = books.open("a", "m", ONLY_OK)
    books.close_missing()
    books.close(ticket, OK)
    assert [problem.kind for problem in books.balance().problems] == [Kind.MISSING, Kind.DOUBLE]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Kind.WRONG, "Y is 3.0"),
        Outcome(Kind.UNEXPLAINED, "INTERNAL"),
        Outcome(Kind.LINK_LOST, "Socket closed"),
        Outcome(Kind.QUEUE_FULL, "Exceeds maximum queue size"),
    ],
    ids=lambda outcome: outcome.kind.name,
)
def test_what_the_ticket_does_not_allow_is_a_problem(
    books: Books, clock: Clock, outcome: Outcome
) -> None:
    clock.now_s += 5
    ticket = books.open("a", "m", ONLY_OK)
    clock.now_s += 2
    books.close(ticket, outcome)
    (problem,) = books.balance().problems
    assert (problem.kind, problem.detail) == (outcome.kind, outcome.detail)
    assert (problem.sent_s, problem.took_s) == (5, 2)


def test_what_the_ticket_allows_is_none(books: Books) -> None:
    books.note("a", "m", Outcome(Kind.QUEUE_FULL), frozenset({Kind.OK, Kind.QUEUE_FULL}))
    assert books.balance().problem_count == 0


def test_known_faults_are_kept_in_sight(books: Books) -> None:
    books.note("a", "m", Outcome(Kind.LINK_LOST, "GOAWAY"), frozenset({Kind.LINK_LOST}))
    balance = books.balance()
    assert balance.problem_count == 0
    assert [problem.detail for problem in balance.known] == ["GOAWAY"]


def test_problems_are_counted_beyond_those_that_are_kept(books: Books) -> None:
    for _ in range(PROBLEMS_KEPT + 10):
        books.note("a", "m", Outcome(Kind.WRONG), ONLY_OK)
    balance = books.balance()
    assert len(balance.problems) == PROBLEMS_KEPT
    assert balance.problem_count == PROBLEMS_KEPT + 10


def test_counts_add_up_by_model_and_kind(books: Books) -> None:
    for actor, model in (("a", "m"), ("b", "m"), ("b", "n")):
        books.note(actor, model, OK, ONLY_OK)
    balance = books.balance()
    assert balance.of_model("m") == {Kind.OK: 2}
    assert balance.by_kind() == {Kind.OK: 3}
