"""Parts of a Markdown page that a program writes: they lie between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def between(text: str, name: str) -> str:
    """What lies between the marks of that name. Raises ValueError where they are not there."""
    _, _, rest = _cut(text, f"<!-- {name} -->\n")
    return _cut(rest, f"<!-- /{name} -->")[0].rstrip("\n")


def fill(text: str, name: str, content: str) -> str:
    """`text` with something else between the marks. Raises ValueError where they are not there."""
    before, start, rest = _cut(text, f"<!-- {name} -->\n")
    _, end, after = _cut(rest, f"<!-- /{name} -->")
    return f"{before}{start}{content}\n{end}{after}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cut(text: str, mark: str) -> tuple[str, str, str]:
    if text.count(mark) != 1:
        raise ValueError(f"expected {mark.strip()} once, found it {text.count(mark)} times")
    return text.partition(mark)
