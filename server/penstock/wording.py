"""Words of messages: those that depend on a number, and what is left of long ones."""

from __future__ import annotations

from typing import Final

MAX_REASON: Final = 2000
"""Characters of why something failed, where it is shown again and again. The log has all of them."""
LEFT_OUT: Final = " […] "


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, most: int = MAX_REASON) -> str:
    """The text, or its start and its end, `most` characters together: what failed stands at the start, and why often at
    the end."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - len(LEFT_OUT)]}{LEFT_OUT}{text[len(text) - end :]}"
