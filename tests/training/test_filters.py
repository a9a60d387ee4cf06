"""Filters: what they let through is what Python says, pruned by partition or read by Arrow."""

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_training.data.errors import BadFilter
from penstock_training.data.filters import columns_of, may_match, parse, to_arrow

ROWS = [
    {"n": number, "s": text, "x": None if number is None else number / 2}
    for number in (None, -1, 0, 1, 2)
    for text in ("a", "b", None)
]
SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string()), ("x", pa.float64())])


def through(text: str) -> list[dict[str, object]]:
    """The rows that Arrow lets through."""
    table = pa.Table.from_pylist(ROWS, SCHEMA)
    found: list[dict[str, object]] = (
        ds.dataset(table).to_table(filter=to_arrow(parse(text), SCHEMA)).to_pylist()
    )
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", lambda r: True),
        ("n == 1", lambda r: r["n"] == 1),
        ("n != 1", lambda r: r["n"] not in (1, None)),
        ("n > 0.5 and s == 'a'", lambda r: r["n"] in (1, 2) and r["s"] == "a"),
        ("n < 0 or s == 'b'", lambda r: r["n"] == -1 or r["s"] == "b"),
        ("not (n <= 0 or s == 'b')", lambda r: r["n"] in (1, 2) and r["s"] == "a"),
        ("s in ['a', 'c']", lambda r: r["s"] == "a"),
        ("n not in {1, 2}", lambda r: r["n"] not in (1, 2)),
        ("s is None", lambda r: r["s"] is None),
        ("s is not None and x >= 1", lambda r: r["s"] is not None and r["n"] == 2),
    ],
)
def test_rows_that_fit(text: str, wanted: object) -> None:
    assert callable(wanted)
    assert through(text) == [row for row in ROWS if wanted(row)]


atoms = st.sampled_from(
    [
        "n == 1",
        "n != 1",
        "n < 1",
        "n >= 0",
        "n in [0, 2]",
        "n is None",
        "s == 'a'",
        "s > 'a'",
        "s is not None",
    ]
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=6,
)


@given(expressions, st.sets(st.sampled_from(["n", "s"])))
def test_no_row_is_pruned_that_arrow_would_let_through(text: str, known: set[str]) -> None:
    tree = parse(text)
    for row in through(text):
        assert may_match(tree, {name: row[name] for name in known})


def test_what_cannot_match_is_pruned() -> None:
    assert not may_match(parse("s == 'a' and n > 1"), {"s": "b"})
    assert not may_match(parse("not s == 'a'"), {"s": "a"})
    assert may_match(parse("s == 'a' or n > 1"), {"s": "b"})


def test_dates_are_written_as_text() -> None:
    days = pa.array([20000, 20001], pa.date32())
    schema = pa.schema([("day", pa.date32())])
    expression = to_arrow(parse("day > '2024-10-04'"), schema)
    table = pa.table({"day": days})
    assert ds.dataset(table).to_table(filter=expression).num_rows == 1
    assert not may_match(parse("day > '2024-10-05'"), {"day": days[1].as_py()})


def test_the_columns_of_an_expression() -> None:
    assert columns_of(parse("a == 1 and (not b in [1] or c is None)")) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n = 1", "can't be read"),
        ("n ==", "can't be read"),
        ("1 < n", "`1 < n` is no comparison of a column"),
        ("0 < n < 2", "`0 < n < 2` is no comparison"),
        ("open('x')", r"`open\('x'\)` is no comparison"),
        ("n == m", "can't be read"),
        ("n in []", "'n' can't be compared so"),
        ("n == None", "'n' can't be compared so"),
    ],
)
def test_what_is_no_filter(text: str, says: str) -> None:
    with pytest.raises(BadFilter, match=says):
        parse(text)


def test_what_does_not_fit_the_columns() -> None:
    with pytest.raises(BadFilter, match="there is no column 'm'; there are: n, s, x"):
        to_arrow(parse("m == 1"), SCHEMA)
    with pytest.raises(BadFilter, match="column 'n' is int64, 'one' can't be compared with it"):
        to_arrow(parse("n == 'one'"), SCHEMA)
