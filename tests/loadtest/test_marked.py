"""Parts of a page between marks."""

from __future__ import annotations

import pytest

from penstock_loadtest.marked import between, fill, table

PAGE = "before\n<!-- x -->\nold\n<!-- /x -->\nafter\n"


def test_what_is_filled_in_is_read_back_and_the_rest_stays() -> None:
    page = fill(PAGE, "x", "new\nlines")
    assert between(page, "x") == "new\nlines"
    assert page == PAGE.replace("old", "new\nlines")


@pytest.mark.parametrize(("text", "times"), [("text", 0), (PAGE * 2, 2)])
def test_a_page_without_its_marks_is_refused(text: str, times: int) -> None:
    with pytest.raises(ValueError, match=f"expected <!-- x --> once, found it {times} times"):
        fill(text, "x", "new")


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
