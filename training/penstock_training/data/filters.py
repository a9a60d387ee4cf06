"""Which rows: `split == "train" and label in [1, 2]`, in Python's words for it.

An expression is text, so that it stands in configuration, manifests and MLflow as it was written. It is pushed down
three times: files whose partition can't fit are never opened (`may_match`), row groups whose statistics can't fit are
never read, and what is left is filtered while it is read (`to_arrow`, for both).
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from penstock_training.data.errors import BadFilter

COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXAMPLE: Final = """expected such as: split == "train" and label in [1, 2]"""


@dataclass(frozen=True)
class Compare:
    """`column == value`"""

    column: str
    compare: Callable[[Any, Any], Any]
    value: Any


@dataclass(frozen=True)
class Among:
    """`column in [values]`"""

    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class IsNull:
    """`column is None`"""

    column: str


@dataclass(frozen=True)
class Not:
    """`not part`"""

    part: Filter


@dataclass(frozen=True)
class All:
    """`part and part`"""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Any_:
    """`part or part`"""

    parts: tuple[Filter, ...]


Filter = Compare | Among | IsNull | Not | All | Any_
NOTHING: Final = All(())
"""Lets every row through."""


def parse(text: str) -> Filter:
    """The tree of an expression; an empty one lets every row through."""
    if not text.strip():
        return NOTHING
    try:
        return _tree(ast.parse(text.strip(), mode="eval").body, text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadFilter(f"filter `{text}` can't be read; {_EXAMPLE}") from error


def columns_of(tree: Filter) -> frozenset[str]:
    """The columns that it looks at."""
    match tree:
        case All(parts) | Any_(parts):
            return frozenset().union(*map(columns_of, parts))
        case Not(part):
            return columns_of(part)
        case Compare() | Among() | IsNull():
            return frozenset({tree.column})


def to_arrow(tree: Filter, schema: pa.Schema) -> ds.Expression | None:
    """For Arrow to filter by. None: every row."""
    match tree:
        case All(()):
            return None
        case All(parts):
            return _joined(operator.and_, parts, schema)
        case Any_(parts):
            return _joined(operator.or_, parts, schema)
        case Not(part):
            return _negated(to_arrow(part, schema))
        case IsNull(column):
            return ds.field(_known(column, schema)).is_null()
        case Compare(column, compare, value):
            return compare(ds.field(column), _literal(value, column, schema))
        case Among(column, values):
            type_ = schema.field(_known(column, schema)).type
            literals = [_literal(value, column, schema).as_py() for value in values]
            return ds.field(column).isin(pa.array(literals, type_))


def may_match(tree: Filter, values: Mapping[str, Any]) -> bool:
    """Whether a row can fit of which only `values` are known (a partition's)."""
    return _holds(tree, values) is not False


def _holds(tree: Filter, values: Mapping[str, Any]) -> bool | None:
    """Kleene's logic: None is unknown."""
    match tree:
        case All(parts):
            held = [_holds(part, values) for part in parts]
            return False if False in held else None if None in held else True
        case Any_(parts):
            held = [_holds(part, values) for part in parts]
            return True if True in held else None if None in held else False
        case Not(part):
            inner = _holds(part, values)
            return None if inner is None else not inner
        case IsNull(column):
            return values[column] is None if column in values else None
        case Compare() | Among():
            return _compared(tree, values)


def _compared(tree: Compare | Among, values: Mapping[str, Any]) -> bool | None:
    if tree.column not in values:
        return None
    value = values[tree.column]
    if isinstance(tree, Among):
        return value in [_like(each, value) for each in tree.values]
    # what is compared with null does not hold, and neither does its opposite: Arrow decides when it reads
    return None if value is None else bool(tree.compare(value, _like(tree.value, value)))


def _like(value: Any, example: Any) -> Any:
    """A date is written as text."""
    if isinstance(value, str) and not isinstance(example, str) and example is not None:
        return pa.scalar(value).cast(pa.scalar(example).type).as_py()
    return value


def _negated(part: ds.Expression | None) -> ds.Expression:
    return ~part if part is not None else ds.scalar(False)


def _joined(join: Callable[[Any, Any], Any], parts: tuple[Filter, ...], schema: pa.Schema) -> Any:
    first, *others = (to_arrow(part, schema) for part in parts)
    for other in others:
        first = join(first, other)
    return first


def _known(column: str, schema: pa.Schema) -> str:
    if column not in schema.names:
        raise BadFilter(
            f"filter: there is no column '{column}'; there are: {', '.join(schema.names)}"
        )
    return column


def _literal(value: Any, column: str, schema: pa.Schema) -> pa.Scalar:
    """Of the column's own type, where it can be said in it: 1.5 is compared with whole numbers as it is."""
    type_ = schema.field(_known(column, schema)).type
    try:
        return pa.scalar(value).cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if isinstance(value, float) and pa.types.is_integer(type_):
            return pa.scalar(value)
        raise BadFilter(
            f"filter: column '{column}' is {type_}, {value!r} can't be compared with it"
        ) from error


def _tree(node: ast.expr, text: str) -> Filter:
    match node:
        case ast.BoolOp(ast.And(), values):
            return All(tuple(_tree(value, text) for value in values))
        case ast.BoolOp(ast.Or(), values):
            return Any_(tuple(_tree(value, text) for value in values))
        case ast.UnaryOp(ast.Not(), operand):
            return Not(_tree(operand, text))
        case ast.Compare(ast.Name(column), [comparison], [right]):
            return _comparison(column, comparison, ast.literal_eval(right), text)
        case _:
            raise BadFilter(
                f"filter `{text}`: `{ast.unparse(node)}` is no comparison of a column; {_EXAMPLE}"
            )


def _comparison(column: str, comparison: ast.cmpop, value: Any, text: str) -> Filter:
    if isinstance(comparison, (ast.Is, ast.IsNot)) and value is None:
        return IsNull(column) if isinstance(comparison, ast.Is) else Not(IsNull(column))
    if (
        isinstance(comparison, (ast.In, ast.NotIn))
        and isinstance(value, (list, tuple, set))
        and value
    ):
        among = Among(column, tuple(sorted(value) if isinstance(value, set) else value))
        return among if isinstance(comparison, ast.In) else Not(among)
    compare = COMPARISONS.get(type(comparison))
    if compare is None or not isinstance(value, (str, bytes, int, float, bool)):
        raise BadFilter(f"filter `{text}`: '{column}' can't be compared so; {_EXAMPLE}")
    return Compare(column, compare, value)
