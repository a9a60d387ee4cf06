"""The bare loop: what each of its two modes does in a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock_loadtest.bare_loop import BATCH, Feeds, batches, loop_steps, onnx_steps, timed


class Diary:
    """Notes the calls of a fake tokenizer and a fake session."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def batch(self, texts: Sequence[str]) -> Feeds:
        self.calls.append(f"tokenise {len(texts)}")
        return {"input_ids": np.zeros((len(texts), 3), np.int64)}

    def run(self, feeds: Feeds) -> object:
        self.calls.append(f"run {len(feeds['input_ids'])}")
        return None


def test_batches_hold_32_texts_of_many_lengths() -> None:
    found = batches()
    assert {len(batch) for batch in found} == {BATCH}
    assert len({len(text.split()) for batch in found for text in batch}) > 20


def test_the_loop_tokenises_in_each_step() -> None:
    diary = Diary()
    step = loop_steps(diary.run, diary.batch)
    step()
    step()
    assert diary.calls == ["tokenise 32", "run 32"] * 2


def test_onnx_alone_tokenises_beforehand() -> None:
    diary = Diary()
    step = onnx_steps(diary.run, diary.batch)
    diary.calls.clear()
    for _ in range(len(batches()) + 1):
        step()
    assert set(diary.calls) == {"run 32"}


def test_every_step_that_was_begun_is_counted() -> None:
    steps: list[int] = []
    found = timed(lambda: steps.append(1), 0.01)
    assert found.texts == len(steps) * BATCH
    assert found.seconds >= 0.01
