"""What is left of long texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.wording import LEFT_OUT, MAX_REASON, shortened


@given(st.text(max_size=300), st.integers(30, 200))
def test_a_long_text_keeps_its_start_and_its_end(text: str, most: int) -> None:
    short = shortened(text, most)
    if len(text) <= most:
        assert short == text
    else:
        assert len(short) == most
        start, _, end = short.partition(LEFT_OUT)
        assert text.startswith(start)
        assert text.endswith(end)
        assert min(len(start), len(end)) >= most // 3 - len(LEFT_OUT)


def test_what_failed_and_why() -> None:
    text = f"torch can't load 1/model.pt: {'frame, ' * 2000}KeyError: 'w'"
    short = shortened(text)
    assert len(short) == MAX_REASON
    assert short.startswith("torch can't load 1/model.pt: ")
    assert short.endswith("KeyError: 'w'")
