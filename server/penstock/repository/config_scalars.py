"""What a single value of a configuration file may be, for each type that a key can have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from penstock.repository.config_tree import Scalar, Style

INTEGER: Final = re.compile(r"(-?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]+)|([0-9]+))")
FLOAT: Final = re.compile(
    r"-?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?f?|nan|inf(?:inity)?f?)"
)

MAX_DIGITS: Final = 30
"""More digits than any number that fits, and few enough to convert."""

BOOLEANS: Final = MappingProxyType(
    {"true": True, "True": True, "t": True, "1": True}
    | {"false": False, "False": False, "f": False, "0": False}
)


class ScalarError(Exception):
    """The value is not what its key wants; the text says what was expected."""


def read_text(scalar: Scalar) -> str:
    """A string: in quotes, or any plain value of YAML."""
    if scalar.style not in (Style.TEXT, Style.PLAIN):
        raise ScalarError("expected text in quotes" if scalar.text else "expected text")
    try:
        scalar.text.encode()
    except UnicodeEncodeError as error:
        raise ScalarError("expected text that UTF-8 can hold") from error
    return scalar.text


def read_boolean(scalar: Scalar) -> bool:
    """true or false, and protobuf's other spellings of them."""
    if scalar.style is Style.TEXT or scalar.text not in BOOLEANS:
        raise ScalarError("expected true or false")
    return BOOLEANS[scalar.text]


def integer_reader(low: int, high: int) -> Callable[[Scalar], int]:
    """A reader of whole numbers from `low` to `high`: decimal, hexadecimal (0x) or octal (0)."""
    expected = f"expected a whole number from {low} to {high}"

    def read(scalar: Scalar) -> int:
        match = INTEGER.fullmatch(scalar.text)
        if scalar.style is Style.TEXT or match is None or len(scalar.text) > MAX_DIGITS:
            raise ScalarError(expected)
        sign, hexadecimal, octal, decimal = match.groups()
        base = 16 if hexadecimal else 8 if octal else 10
        number = int(hexadecimal or octal or decimal, base)
        number = -number if sign else number
        if not low <= number <= high:
            raise ScalarError(expected)
        return number

    return read


def read_number(scalar: Scalar) -> float:
    """A number with or without a fraction."""
    if scalar.style is Style.TEXT or not FLOAT.fullmatch(scalar.text):
        raise ScalarError("expected a number")
    return float(scalar.text.removesuffix("f") if "inf" not in scalar.text else scalar.text)


READERS: Final[Mapping[int, Callable[[Scalar], Any]]] = MappingProxyType(
    {
        FieldDescriptor.TYPE_STRING: read_text,
        FieldDescriptor.TYPE_BOOL: read_boolean,
        FieldDescriptor.TYPE_INT32: integer_reader(-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_INT64: integer_reader(-(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_UINT32: integer_reader(0, 2**32 - 1),
        FieldDescriptor.TYPE_UINT64: integer_reader(0, 2**64 - 1),
        FieldDescriptor.TYPE_FLOAT: read_number,
        FieldDescriptor.TYPE_DOUBLE: read_number,
    }
)
"""Protobuf type → reader. These are all types that ModelConfig has."""
