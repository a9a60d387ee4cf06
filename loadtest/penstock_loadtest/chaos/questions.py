"""What clients ask, and whether an answer is right."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_loadtest.chaos.books import Kind, Outcome
from penstock_loadtest.chaos.models import Target

Array = NDArray[Any]

WIDTHS = (1, 3, 8, 8, 8, 64)
"""Columns of a question. Requests of one width can share a batch: so one is common."""
LARGEST = 1 << 20
"""Twice this and one more is still exact in FP32."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, decoded."""

    id: str
    y: Array | None
    generation: Array | None = None


class Generations:
    """Which loads of the model that is reloaded may answer now. Written by the one who reloads."""

    def __init__(self) -> None:
        self.oldest = 0
        """The load that was completed last: what is sent from now on must see it, or a newer one."""
        self.newest = 0
        """The load that was begun last."""


def make_question(rng: random.Random, target: Target, columns: int = 0) -> NDArray[np.float32]:
    """A random X of one to `max_rows` rows; `columns` 0 chooses a width."""
    rows = rng.randint(1, target.max_rows) if rng.random() < 0.5 else 1
    columns = columns or rng.choice(WIDTHS)
    values = np.random.default_rng(rng.getrandbits(64)).integers(0, LARGEST, (rows, columns))
    return values.astype(np.float32)


def judge(
    x: NDArray[np.float32], request_id: str, reply: Reply, oldest: int, newest: int
) -> Outcome:
    """OK, or WRONG with what differs. `oldest` is of when it was sent, `newest` of when it was answered."""
    if reply.id != request_id:
        return Outcome(Kind.WRONG, f"the answer of request '{reply.id}' came")
    if reply.y is None or reply.y.shape != x.shape or reply.y.dtype != np.float32:
        return Outcome(Kind.WRONG, f"expected Y of FP32 {x.shape}, got {_form(reply.y)}")
    if not np.array_equal(reply.y, 2 * x + 1):
        at = np.argwhere(reply.y != 2 * x + 1)
        row, column = at[0]
        return Outcome(
            Kind.WRONG,
            f"{len(at)} of {x.size} values of Y {x.shape} are wrong, the first at "
            f"[{row}, {column}]: X is {x[row, column]}, Y is {reply.y[row, column]}",
        )
    if reply.generation is not None:
        return _judge_generation(reply.generation, len(x), oldest, newest)
    return Outcome(Kind.OK)


def _judge_generation(found: Array, rows: int, oldest: int, newest: int) -> Outcome:
    if found.shape != (rows, 1):
        return Outcome(Kind.WRONG, f"expected GENERATION of ({rows}, 1), got {found.shape}")
    if not (oldest <= found.min() and found.max() <= newest):
        return Outcome(
            Kind.WRONG,
            f"GENERATION is {sorted(set(found.ravel().tolist()))}, expected {oldest} to {newest}: "
            "the load that answered is not one that served then",
        )
    return Outcome(Kind.OK)


def _form(array: Array | None) -> str:
    return "none" if array is None else f"{array.dtype} {array.shape}"
